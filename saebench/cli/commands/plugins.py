"""`saebench plugins`: what is there, where it came from, and what is broken."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import click

from saebench.cli.common import common, emit, plugin_files


def _rows(catalog: Any) -> dict[str, list[dict[str, Any]]]:
    def row(name: str, registered: Any, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "version": registered.spec.version,
            "distribution": registered.distribution,
            "distribution_version": registered.version,
            "module": registered.module,
            **more,
        }

    return {
        "architectures": [
            row(n, o, description=o.spec.description, tags=sorted(o.spec.tags))
            for n, o in sorted(catalog.architectures.items())
        ],
        "datasets": [
            row(n, o, description=o.spec.description, kind=o.spec.kind) for n, o in sorted(catalog.datasets.items())
        ],
        "metrics": [
            row(n, o, ids=[info.id for info in o.spec.provides], core=o.spec.core)
            for n, o in sorted(catalog.metrics.items())
        ],
        "problems": [
            {
                "name": p.origin.name,
                "distribution": p.origin.distribution,
                "module": p.origin.module,
                "message": p.message,
                "details": p.details,
            }
            for p in (*catalog.problems, *(clash.problem for clash in catalog.clashes))
        ],
    }


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@common
@plugin_files
def command(as_json: bool, plugins: tuple[Path, ...], debug: bool) -> None:
    """List every architecture, dataset and metric with its package and version, and each problem found."""
    from saebench.host import load_catalog

    rows = _rows(load_catalog(plugins))
    if as_json:
        emit(json.dumps(rows, indent=2, sort_keys=True))
        return
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    for kind in ("architectures", "datasets", "metrics"):
        emit(kind, bold=True)
        for row in rows[kind]:
            text = row.get("description") or ", ".join(row.get("ids", ()))
            head = f"  {row['name']:<20} {row['version']:<4}"
            lines = textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * 27, break_on_hyphens=False)
            emit("\n".join(lines or [head.rstrip()]))  # a text without words has no lines
            emit(f"{'':<27}{row['distribution']} {row['distribution_version']}")
        emit()
    if rows["problems"]:
        emit("problems", bold=True)
        for problem in rows["problems"]:
            emit(
                textwrap.fill(
                    f"{problem['name']} ({problem['distribution']}): {problem['message']}",
                    width,
                    initial_indent="  ",
                    subsequent_indent="    ",
                )
            )
            if debug:
                emit(textwrap.indent(problem["details"], "      "))
    else:
        emit("no problems")
