"""Language models: their folders, where to read, traces, samples, and losses with a place spliced."""
