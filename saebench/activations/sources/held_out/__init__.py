"""Held-out data, which cells are scored on: made once for each dataset and evaluation seed, and shared by all cells."""
