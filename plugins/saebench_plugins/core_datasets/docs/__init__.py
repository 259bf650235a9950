"""The corpus `docs`: prose and docstrings of installed packages."""
