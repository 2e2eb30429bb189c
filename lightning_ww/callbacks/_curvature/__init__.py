"""What `CurvatureMonitor` alone needs."""
