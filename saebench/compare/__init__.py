"""Comparing two SAEs, ours or other libraries': reading both, matching them, the terminal page and the picture."""
