"""Chakra execution traces of a phase, one file per rank, and the files that ASTRA-sim's analytical backends need."""
