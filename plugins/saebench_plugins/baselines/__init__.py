"""Baselines that every comparison carries: ReLU with L1, and BatchTopK."""
