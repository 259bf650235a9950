"""Activations of language models and of datasets: tokens, stores on disk, live forwards, one order for all."""
