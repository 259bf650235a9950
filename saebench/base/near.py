"""Near misses, for messages that say what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that `name` most likely means, or None when nothing is close."""
    options = list(allowed)
    folded = {option.lower().replace("_", "-"): option for option in options}
    close = difflib.get_close_matches(name.lower().replace("_", "-"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def hint(name: str, allowed: Iterable[str]) -> str:
    """` Did you mean X?` and what is allowed, as the tail of a message."""
    options = list(allowed)
    if not options:
        return "None is allowed here."
    close = nearest(name, options)
    shown = ", ".join(options) if len(options) <= 24 else ", ".join(options[:24]) + ", ..."
    return (f"Did you mean {close!r}? " if close else "") + f"Allowed: {shown}."
