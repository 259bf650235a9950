"""How far SAEs agree: over init seeds, and over training datasets."""
