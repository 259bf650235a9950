"""The pluggy host: discovery one plugin at a time, a catalog of names, calls to observers."""

from __future__ import annotations

from saebench.host.catalog import Catalog, Clash, Registered, load_catalog
from saebench.host.discovery import Origin, PluginProblem

__all__ = ["Catalog", "Clash", "Origin", "PluginProblem", "Registered", "load_catalog"]
