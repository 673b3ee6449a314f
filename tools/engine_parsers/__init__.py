"""The argument parsers and checks of real engines, on a machine without GPUs."""
