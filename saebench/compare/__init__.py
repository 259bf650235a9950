"""Comparing two SAEs, ours or other libraries': reading both sides, matching them, the page for a terminal and the picture."""
