"""Datasets of vectors: files of activations, and data with known features."""
