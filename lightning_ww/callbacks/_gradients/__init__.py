"""The parts that only `GradientMonitor` needs."""
