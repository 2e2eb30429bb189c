"""The parts that only `CurvatureMonitor` needs."""
