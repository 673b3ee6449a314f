"""Files for other programs, write only: one file for each exporter."""
