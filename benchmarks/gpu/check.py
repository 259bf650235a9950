"""Checks saebench on the card of this machine, in one call and under eight minutes. See README.md.

python benchmarks/gpu/check.py --device cuda --out FOLDER [--wheels FOLDER] [--short] [--sections tests,curves]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from environment import ROOT, prepare
from guard import guarded
from table import exit_status, table

SECTIONS = {
    "machine": ("what this machine is, and its ceilings", 40, 15),
    "curves": ("six architectures, CPU against device, one seed", 70, 30),
    "repeat": ("two runs on the device, and one that was killed: equal bits", 80, 30),
    "memory": ("out of memory, and over the share, through a whole run", 60, 30),
    "steps": ("a training step beside the encoder's product", 110, 30),
    "matching": ("exact matching of large dictionaries", 110, 30),
    "tests": ("unit tests of nn, train, score and matching on the device", 200, 45),
}
"""Title, seconds that it may take, and in the short form. Their sum is over the whole's: what is quick leaves its rest
to those behind it."""
WHOLE_S, SHORT_S = 465.0, 58.0
RESULT, TABLE, LOG = "gpu-check.json", "gpu-check.txt", "gpu-check.log"


def child(name: str, arguments: argparse.Namespace) -> None:
    """One section, in this process."""
    if os.environ.get("SAEBENCH_WHEELS"):
        sys.path.append(os.environ["SAEBENCH_WHEELS"])
    from notes import Notes

    notes = Notes(arguments.notes)
    notes.save()
    from sections import Setting

    try:
        setting = Setting(arguments.device, arguments.short, arguments.scratch)
        import_module(f"sections.{name}").run(notes, setting)
    except Exception as error:
        notes.fail(f"{type(error).__name__}: {str(error).strip()[:600]}")
        raise
    notes.end()


def check(arguments: argparse.Namespace, chosen: list[str]) -> dict[str, Any]:
    """All chosen sections, one after the other; the result is stored after each."""
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / LOG).write_bytes(b"")
    started = time.perf_counter()
    usual = SHORT_S if arguments.short else WHOLE_S
    whole = arguments.limit or usual
    result: dict[str, Any] = {
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "device": arguments.device,
        "short": arguments.short, "limit_s": whole, "seconds": 0.0, "machine": {}, "sections": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        env = prepare(scratch, arguments.wheels, small=arguments.short)
        for name in chosen:
            title, long_s, short_s = SECTIONS[name]
            left = whole - (time.perf_counter() - started)
            share = short_s if arguments.short else long_s
            limit = max(1.0, min(share * max(1.0, whole / usual), left))
            own = scratch / name
            own.mkdir()
            command = [sys.executable, __file__, "--child", name, "--device", arguments.device]
            command += ["--scratch", str(own), "--notes", str(own / "notes.json")]
            command += ["--short"] if arguments.short else []
            print(f"gpu-check: {name}, at most {limit:.0f} s", file=sys.stderr, flush=True)
            found = guarded(command, own / "notes.json", out / LOG, limit_s=limit, env=env)
            result["sections"][name] = {"title": title, "limit_s": limit, **found}
            if name == "machine":
                result["machine"] = found["facts"]
            result["seconds"] = time.perf_counter() - started
            write(out / RESULT, json.dumps(result, indent=1) + "\n")
            write(out / TABLE, table(result) + "\n")
    return result


def write(path: Path, text: str) -> None:
    """All or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--short", action="store_true", help="small sizes, under a minute: does it run?")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu-check", help="gets JSON, table and log")
    parser.add_argument("--wheels", type=Path, help="folder of wheels for what is not installed; nothing is installed")
    parser.add_argument("--sections", default="all", help=f"all, or some of {','.join(SECTIONS)}")
    parser.add_argument("--limit", type=float, help="seconds for the whole, and more for each section")
    for hidden in ("--notes", "--scratch"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments)
        return
    chosen = list(SECTIONS) if arguments.sections == "all" else arguments.sections.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS]:
        raise SystemExit(f"--sections: no section {', '.join(unknown)}. Use all, or some of {', '.join(SECTIONS)}.")
    result = check(arguments, chosen)
    print(table(result), flush=True)
    raise SystemExit(exit_status(result))


if __name__ == "__main__":
    main()
