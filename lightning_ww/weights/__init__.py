"""What the spectrum of a weight matrix says. It needs no data and no Lightning."""
