"""Pictures and tables of spectra."""
