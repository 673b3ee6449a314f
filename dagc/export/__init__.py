"""Files for other programs, write only: one registry of exporters, built-in and from plugins."""
