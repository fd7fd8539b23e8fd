"""Measurements: speed, memory, and pictures against those of other programs."""
