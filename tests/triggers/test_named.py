"""Every trigger that is not raised by default is in the table, under its name."""

from __future__ import annotations

import lightning_ww
from lightning_ww import Trigger
from lightning_ww.triggers.diagnosis import DEFAULTS
from lightning_ww.triggers.named import NAMED


def test_all_public_triggers_but_the_default_ones_are_there_under_their_names() -> None:
    public = [getattr(lightning_ww, name) for name in lightning_ww.__all__]
    ours = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Trigger) and kind is not Trigger}
    assert set(NAMED.values()) == ours - {type(trigger) for trigger in DEFAULTS}
    assert all(kind().name == name for name, kind in NAMED.items())
