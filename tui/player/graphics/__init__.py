"""Encoders of the picture: pixels of cells and of terminals."""
