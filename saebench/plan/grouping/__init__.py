"""Cells, and what they form: cohorts that share activations, passes that share forwards, groups that share metrics."""
