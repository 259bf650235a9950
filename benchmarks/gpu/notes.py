"""What a section finds, written down as it is found: a section that is cut keeps what it has."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Notes:
    """Figures, checks, facts and failures of one section.

    Attributes:
        path: Where they are stored, anew after each line.
        figures: `{name, value, unit, bound, ok}`; `ok` is None where there is no bound.
        failures: One line each.
        facts: What one must know to read the figures: sizes, bounds and where they come from.
    """

    path: Path
    figures: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    ended: bool = False

    def figure(self, name: str, value: float, unit: str = "", *, most: float | None = None) -> None:
        """A number; one that is over `most`, or no number, is a failure."""
        ok = None if most is None else math.isfinite(value) and value <= most
        self.figures.append({"name": name, "value": value, "unit": unit, "bound": most, "ok": ok})
        if ok is False:
            self.failures.append(f"{name}: {value:.4g}{unit and ' '}{unit}, allowed is at most {most:.4g}")
        self.save()

    def check(self, name: str, ok: bool, otherwise: str = "") -> None:
        """Something that must be so."""
        self.figures.append({"name": name, "value": None, "unit": "", "bound": None, "ok": bool(ok)})
        if not ok:
            self.failures.append(f"{name}: no{otherwise and ': '}{otherwise}")
        self.save()

    def fact(self, name: str, value: Any) -> None:
        """Something to know."""
        self.facts[name] = value
        self.save()

    def fail(self, line: str) -> None:
        """Something that went wrong and is no figure."""
        self.failures.append(line)
        self.save()

    def end(self) -> None:
        """The section came to its end."""
        self.ended = True
        self.save()

    def save(self) -> None:
        """All or nothing."""
        told = {name: getattr(self, name) for name in ("ended", "figures", "failures", "facts")}
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(told, default=str), "utf-8")
        os.replace(part, self.path)
