"""The rules that an architecture is held to, by what they look at."""
