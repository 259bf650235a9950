"""Names as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def natural(text: str) -> tuple[Any, ...]:
    """Sort key in which k8 comes before k16."""
    # digits of ASCII alone, and of a length that Python reads: `int("²")` raises
    pieces = re.split(r"([0-9]{1,18})", text)
    return tuple((int(piece), "") if i % 2 else (-1, piece) for i, piece in enumerate(pieces))


def model_name(id: str) -> str:
    """A model id as a title: a folder by its last part, a hub id or a built-in name as it is."""
    path = PurePath(id.replace("\\", "/"))
    return path.name if path.is_absolute() or id.startswith((".", "~")) or re.match(r"[A-Za-z]:", id) else id


def model_title(model: Mapping[str, Any]) -> str:
    """A record's model as a title: `gemma-2-2b`; with how it was loaded where that is not the default, `(bfloat16)`."""
    load = model.get("load") or {}
    how = [load[key] for key in ("dtype", "quantisation") if load.get(key)]
    how += [f"{load['attention']} attention"] if load.get("attention") else []
    how += ["its own code"] if load.get("trust_remote_code") else []
    return model_name(model["id"]) + (f" ({', '.join(how)})" if how else "")


def short(digest: object) -> str:
    """First 12 hex digits of a digest."""
    return str(digest)[:12] if digest else "not recorded"
