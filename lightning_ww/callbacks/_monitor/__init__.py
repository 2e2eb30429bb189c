"""The parts that all monitors share."""
