"""The user's loss, evaluated in mid-run without a trace."""
