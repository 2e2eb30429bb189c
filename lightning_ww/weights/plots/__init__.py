"""Pictures and tables of reports."""
