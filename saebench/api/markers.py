"""pluggy markers. A plugin writes `@hookimpl` above a function named like a hook in `saebench.api.hookspecs`."""

from __future__ import annotations

import pluggy

PROJECT = "saebench"
ENTRY_POINT_GROUP = "saebench"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
