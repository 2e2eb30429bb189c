"""Pytest's root: the `callbacks` link is a signpost, its code is collected as `lightning_ww/callbacks`."""

collect_ignore = ["callbacks"]
