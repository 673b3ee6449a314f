"""Exporters: one file each, from a compiled plan to text or bytes."""
