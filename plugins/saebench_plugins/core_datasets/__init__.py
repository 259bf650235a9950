"""Built-in datasets of saebench."""
