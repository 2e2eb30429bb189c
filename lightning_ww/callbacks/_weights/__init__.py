"""What `WeightSpectrumMonitor` alone needs."""
