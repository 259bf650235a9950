"""How far one suite ends from itself under other arithmetic, beside what another init seed changes.

    python benchmarks/tolerance/measure.py OUT           run the suite in every way below OUT, compare, print the table
    python benchmarks/tolerance/measure.py OUT --write   besides, write what `saebench diff --tolerant` goes by, and the
                                                         table of docs/tolerance.md

What runs beside it costs time and changes no value. What was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from saebench.leaderboard import Moved, diff_tolerant
from saebench.leaderboard.read.records import GroupRecord, Record, read_cells, read_groups
from saebench.leaderboard.read.within import seed_noise

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "saebench" / "leaderboard" / "read" / "tolerance.yaml"
PAGE = ROOT / "docs" / "tolerance.md"
NARROW = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
WAYS: Mapping[str, Mapping[str, str]] = {
    "chosen-1": {"OMP_NUM_THREADS": "1"},
    "plain-1": {"OMP_NUM_THREADS": "1", "SAEBENCH_BACKEND": "plain"},
    "avx2-1": {"OMP_NUM_THREADS": "1", "SAEBENCH_BACKEND": "plain", **NARROW},
    "chosen-2": {"OMP_NUM_THREADS": "2"},
    "plain-2": {"OMP_NUM_THREADS": "2", "SAEBENCH_BACKEND": "plain"},
}
"""What stands in for other machines: the back end that fits this processor and torch's own product, two numbers of
threads, and the instructions of a processor without AVX-512."""
NO_SCALE = ("squared activation", "activation", "latents", "flops", "tokens", "bytes", "values")
"""Units whose values have no scale of their own: what they move by is told as a share of them."""
OF_LATENTS = ("density", "faithfulness", "stability", "truth")
"""Families whose fractions count latents."""
COUNTS = ("tokens", "bytes", "values")
"""Units whose values are decided before training: nothing is allowed."""
FLOAT = 1e-6
"""What every other value may move by: float32's own rounding."""
MARGIN = 1.5
"""What is allowed, over the largest difference that was seen."""
LATENTS = 2
"""So many latents may be on the other side of a threshold, whatever their share is."""
OTHERS = {
    "trajectory/fvu": "fraction", "trajectory/l0": "latents", "trajectory/dead": "fraction",
    "group/latents": "latents", "input-scale": "activation",
}  # fmt: skip
"""Units of what is no metric."""


@dataclass(frozen=True)
class Row:
    """One kind of value.

    Attributes:
        kind: As the table names it.
        relative: Whether drift, noise and tolerance are shares of the value.
        drift: The largest difference between two ways.
        noise: The largest difference that another init seed makes; None where there are no seeds.
        latents: Whether it is a share of latents.
        counts: Whether it is decided before training.
    """

    kind: str
    relative: bool
    drift: float
    noise: float | None
    latents: bool
    counts: bool

    def to_yaml(self) -> str:
        """Its line of the file."""
        moved = 0.0 if self.counts else _up(MARGIN * self.drift)
        allowed: dict[str, float] = {}
        if not self.relative and moved:
            allowed["absolute"] = moved
        if not self.counts:
            allowed["relative"] = max(moved, FLOAT) if self.relative else FLOAT
        if self.latents:
            allowed["latents"] = LATENTS
        numbers = {"drift": _short(self.drift), "noise": None if self.noise is None else _short(self.noise)}
        text = yaml.safe_dump({"allowed": allowed, **numbers}, default_flow_style=True, sort_keys=False, width=1000)
        return f"  {self.kind}: {text.strip()}\n"


def _short(value: float) -> float:
    return float(f"{value:.2g}")


def _up(value: float) -> float:
    """To two digits, not less."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return _short(math.ceil(value / unit * (1 - 1e-9)) * unit)


def run(way: str, out: Path, suite: Path) -> None:
    """Runs the suite, or what is left of it, in a process of its own."""
    command = [sys.executable, "-m", "saebench", "run", str(suite), "--out", str(out / way)]
    inherited = {name: value for name, value in os.environ.items() if name != "SAEBENCH_BACKEND"}
    # two threads that spin for each other on a machine with other work take ten times as long; the bits are the same
    patient = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    subprocess.run(command, check=True, env={**inherited, **patient, **WAYS[way]})


def units(records: Iterable[Record]) -> dict[str, tuple[str, bool, bool]]:
    """Unit, whether it moves with its size, and whether latents are counted, by kind.

    Of metrics those that have a value somewhere. Errors and losses move with their size: what is small moves little.
    """
    found = {
        kind: (unit, unit in NO_SCALE or kind == "trajectory/fvu", kind == "trajectory/dead")
        for kind, unit in OTHERS.items()
    }
    for record in records:
        for id, info in record.facts["metric_info"].items():
            if info["measured"]:
                continue
            metric = record.facts["metrics"][id]
            counts = info["unit"] == "fraction" and info["family"] in OF_LATENTS and id != "dense-mass-10pct"
            for kind, value in ((id, metric["value"]), (f"{id}/stderr", metric["stderr"])):
                if value is not None:
                    loss = info["family"] == "reconstruction" and info["direction"] == "lower"
                    found[kind] = (info["unit"], info["unit"] in NO_SCALE or loss, counts)
    return found


def rows(folders: Sequence[Path]) -> list[Row]:
    """Compares every two of the folders.

    Raises:
        SystemExit: They differ in what must be equal.
    """
    records: dict[Path, list[Record]] = {folder: [*read_cells(folder), *read_groups(folder)] for folder in folders}
    kinds = units(record for found in records.values() for record in found)
    moved: dict[str, list[Moved]] = defaultdict(list)
    for a, b in combinations(folders, 2):
        found = diff_tolerant(a, b)
        if found.differences:
            sys.exit("\n".join(map(str, found.differences)))
        for value in found.moved:
            moved[value.kind].append(value)
    noises = {
        relative: [
            group_noise(found, relative=relative) | seed_noise(found, relative=relative) for found in records.values()
        ]
        for relative in (False, True)
    }
    made = []
    for kind, (unit, relative, counts) in kinds.items():
        size = (lambda value: max(abs(value.a), abs(value.b))) if relative else (lambda value: 1.0)
        drift = max((value.apart / size(value) for value in moved[kind]), default=0.0)
        seen = [noise[kind] for noise in noises[relative] if kind in noise]
        made.append(Row(kind, relative, drift, max(seen) if seen else None, counts, unit in COUNTS))
    return made


def group_noise(records: Iterable[Record], *, relative: bool) -> dict[str, float]:
    """Of metrics of groups of seeds: twice their standard error over the seeds, the largest of all groups."""
    noise: dict[str, float] = {}
    for record in records:
        if isinstance(record, GroupRecord):
            for id, metric in record.facts["metrics"].items():
                size = abs(metric["value"] or 0.0) if relative else 1.0
                if metric["stderr"] is not None and size:
                    noise[id] = max(noise.get(id, 0.0), 2 * metric["stderr"] / size)
    return noise


def machine(folders: Sequence[Path]) -> dict[str, Any]:
    """Where and when, from the records."""
    cells = {folder.name: read_cells(folder) for folder in folders}
    first = next(iter(cells.values()))
    return {
        "machine": f"{first[0].measured['host']['cores']} cores of {first[0].measured['host']['cpu']}",
        "date": max(str(cell.measured["finished"]) for cell in first)[:10],
        "torch": first[0].measured["versions"]["torch"],
        "cells": len(first),
        "ways": {name: _way(cell.measured) for name, (cell, *_) in cells.items()},
    }


def _way(measured: Mapping[str, Any]) -> str:
    return f"{measured['backend']}, threads: {measured['threads']}, {measured['host']['cpu_path']}"


def as_yaml(found: Sequence[Row], how: Mapping[str, Any]) -> str:
    """The file that `diff --tolerant` reads."""
    head = (
        "# What a value may move by between two machines. Made by `benchmarks/tolerance/measure.py --write`;\n"
        "# docs/tolerance.md explains it. `drift`: the largest difference between two ways; `noise`: the largest that\n"
        "# another init seed makes (null: no seeds to tell).\n"
    )
    measured = yaml.safe_dump({"measured": dict(how)}, sort_keys=False, width=110)
    return head + measured + "values:\n" + "".join(row.to_yaml() for row in sorted(found, key=lambda row: row.kind))


def as_page(made: Mapping[str, Any]) -> str:
    """What docs/tolerance.md shows of the file: how it was measured, and the table.

    Metrics first, then the other values. Standard errors are only in the file.
    """
    how = made["measured"]
    ways = "".join(f"- `{name}`: {way}\n" for name, way in how["ways"].items())
    place = f"{how['machine']}, {how['date']}, torch {how['torch']}, {how['cells']} cells a way"
    return f"Measured on {place}; {len(how['ways'])} ways:\n{ways}\n{_table(made['values'])}"


def _table(values: Mapping[str, Any]) -> str:
    lines = []
    for kind in sorted(values, key=lambda kind: ("/" in kind, kind)):
        allowed, drift, noise = (values[kind][key] for key in ("allowed", "drift", "noise"))
        if not allowed or "/stderr" in kind:
            continue
        share = "absolute" not in allowed and allowed["relative"] > FLOAT
        limit = allowed.get("absolute", allowed["relative"])
        over = noise is not None and limit > max(noise, FLOAT)
        lines.append(
            [
                f"`{kind}`",
                _number(drift, share),
                "-" if noise is None else _number(noise, share),
                _number(limit, share or "absolute" not in allowed)
                + (f", or {allowed['latents']} latents" if "latents" in allowed else ""),
                ("-" if not noise else f"{limit / noise:.2f}") + (" !" if over else ""),
            ]
        )
    headers = ["value", "another way", "another seed", "allowed", "allowed / another seed"]
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def _number(value: float, share: bool) -> str:
    """A share of the value in per cent, or a number in the value's own unit."""
    return f"{100 * value:.2g} %" if share and value else f"{value:.2g}"


def write(text: str) -> None:
    """The file, and the table on the page."""
    TABLE.write_text(text, "utf-8")
    shown = as_page(yaml.safe_load(text))
    page = PAGE.read_text("utf-8")
    PAGE.write_text(re.sub(r"(<!-- table -->\n).*(<!-- end -->)", rf"\g<1>{shown}\n\g<2>", page, flags=re.S), "utf-8")


def main() -> None:
    """Runs what is missing, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--suite", type=Path, default=Path(__file__).with_name("suite.yaml"))
    parser.add_argument("--no-run", action="store_true", help="the folders are there")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for way in arguments.ways if not arguments.no_run else ():
        run(way, arguments.out, arguments.suite)
    folders = [arguments.out / way for way in arguments.ways]
    text = as_yaml(rows(folders), machine(folders))
    made = yaml.safe_load(text)
    print(as_page(made))
    if arguments.write:
        write(text)


if __name__ == "__main__":
    main()
