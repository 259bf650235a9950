"""A user's home in paths. There may be none: a container can run under a number that has no name."""

from __future__ import annotations

from pathlib import Path


def home() -> Path | None:
    """The user's folder; None where there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def located(path: str | Path) -> Path:
    """A path with `~` resolved; as it is where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
