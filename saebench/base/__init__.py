"""What all may use and that knows nothing of SAEs: canonical JSON, text as people read it, near misses, generators."""
