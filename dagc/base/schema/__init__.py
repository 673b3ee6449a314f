"""Attributes that sections take: dimension, range, default and a line of documentation each."""
