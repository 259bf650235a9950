"""Held-out data: what cells are scored on. It is made once for each dataset and evaluation seed, and shared by all cells."""
