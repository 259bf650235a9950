"""The core metrics."""
