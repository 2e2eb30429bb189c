"""The parts that only `WeightSpectrumMonitor` needs."""
