"""Floors and ceilings: random directions, permuted decoder, PCA, identity."""
