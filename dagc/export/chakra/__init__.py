"""Chakra execution traces of a phase, one file a rank, and the files that ASTRA-sim's analytical backends need."""
