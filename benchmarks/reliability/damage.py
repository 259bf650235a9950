"""Files of a finished run, damaged one at a time and at random: are they named, and does the same command end with the
same numbers?

    python benchmarks/reliability/damage.py -n 200                     every kind of file, every kind of harm
    python benchmarks/reliability/damage.py -n 50 --only weights       one kind of file

Each trial copies a finished run, takes away what is made from the file (so that the run must read it), harms the file,
runs the same command, and compares facts, groups, weights and arrays with those of the undisturbed run. A harm that
leaves a file's content as it
was (a blank in JSON) is named or not; either is right.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "integration"))

from suites import text_file
from test_damage import MATERIAL, PRODUCTS, SAMPLES, SUITE, TOKENS, Kind, files

from saebench.artifacts import iter_groups
from saebench.jobs import run_suite
from saebench.leaderboard import diff
from saebench.testing import make_model

LEVELS = [
    (PRODUCTS, ()),
    (MATERIAL, ("records", "groups", "checkpoints", "arrays")),
    (TOKENS, ("records", "groups", "checkpoints", "arrays", "activations/*/x-*.bin")),
    (SAMPLES, ("records", "groups", "checkpoints", "arrays", "activations")),
]
"""Kinds of files, and what is taken away so that they are read."""


def flip(path: Path, rng: random.Random, _others: list[Path]) -> None:
    """One bit."""
    data = bytearray(path.read_bytes())
    place = rng.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


def zeros(path: Path, rng: random.Random, _others: list[Path]) -> None:
    """A run of zeros, as a lost page of the disk leaves."""
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randrange(1, 4097))
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random, _others: list[Path]) -> None:
    """Cut anywhere."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def append(path: Path, rng: random.Random, _others: list[Path]) -> None:
    """Bytes behind the end."""
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 100)))


def swap(path: Path, rng: random.Random, others: list[Path]) -> None:
    """Two files of one kind in each other's place."""
    other = rng.choice(others)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def duplicate(path: Path, rng: random.Random, others: list[Path]) -> None:
    """Another file of the kind in its place."""
    path.write_bytes(rng.choice(others).read_bytes())


def remove(path: Path, _rng: random.Random, _others: list[Path]) -> None:
    """Gone."""
    path.unlink()


def folder(path: Path, _rng: random.Random, _others: list[Path]) -> None:
    """A folder in its place."""
    path.unlink()
    path.mkdir()


def pipe(path: Path, _rng: random.Random, _others: list[Path]) -> None:
    """A FIFO in its place."""
    path.unlink()
    os.mkfifo(path)


def link(path: Path, _rng: random.Random, _others: list[Path]) -> None:
    """A link that leads nowhere in its place."""
    path.unlink()
    path.symlink_to("nowhere")


HARMS: list[Callable[[Path, random.Random, list[Path]], None]] = [
    flip, zeros, truncate, append, swap, duplicate, remove, folder, pipe, link,
]  # fmt: skip


def content(run: Path) -> dict[str, object]:
    """What a run is for: groups by id, and the bytes of weights and arrays."""
    found: dict[str, object] = {record["group_id"]: record["facts"] for _, record in iter_groups(run)}
    for kind in ("weights", "arrays", "group arrays"):
        found |= {path.relative_to(run).as_posix(): path.read_bytes() for path in run.glob(PRODUCTS[kind].glob)}
    return found


def prepared(suite: Path, whole: Path, at: Path, taken: tuple[str, ...]) -> Path:
    """A copy of the finished run, without what is made from the file."""
    shutil.copytree(whole, at)
    for pattern in taken:
        for path in list(at.glob(pattern)):
            shutil.rmtree(path if path.is_dir() else path.parent)
    return at


def trial(
    suite: Path, whole: Path, expected: dict[str, object], at: Path, rng: random.Random, kinds: list[str]
) -> tuple[str, str, str]:
    """Kind of file, kind of harm, and what came of it."""
    name = rng.choice(kinds)
    level, taken = next((level, taken) for level, taken in LEVELS if name in level)
    kind: Kind = level[name]
    run = prepared(suite, whole, at, taken)
    there = files(run, kind)
    path, harm = rng.choice(there), rng.choice(HARMS)
    before = path.read_bytes()
    harm(path, rng, [other for other in there if other != path] or [path])
    same = path.is_file() and path.read_bytes() == before
    said: list[str] = []
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            result = run_suite(suite, out=run, say=said.append)
    except BaseException as error:  # noqa: BLE001 - any exception is a finding
        return name, harm.__name__, f"ERROR {type(error).__name__}: {error}"
    if result.exit_status:
        return name, harm.__name__, f"ERROR status {result.exit_status}"
    if differences := diff(whole, run):
        return name, harm.__name__, f"ERROR facts differ: {differences[0]}"
    if content(run) != expected:
        return name, harm.__name__, "ERROR groups, weights or arrays differ"
    named = any(
        line.startswith(str(path.parent if path.parent.parent.name == "checkpoints" else path)) for line in said
    )
    return (
        name,
        harm.__name__,
        "named" if named else "as it was" if same else "made again" if harm is remove else "equal",
    )


def main() -> int:
    """Prints a line a trial and a table; status 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100, help="trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="KIND", help="one kind of file")
    arguments = parser.parse_args()
    kinds = [name for level, _ in LEVELS for name in level]
    kinds = [arguments.only] if arguments.only else list(dict.fromkeys(kinds))
    rng = random.Random(arguments.seed)
    started = time.monotonic()
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="saebench-damage-") as root:
        suite, whole = Path(root, "damage.yaml"), Path(root, "whole")
        os.environ["XDG_CACHE_HOME"] = str(Path(root, "cache"))
        make_model(Path(root, "model"), "llama")
        text_file(Path(root, "text.txt"))
        suite.write_text(SUITE.format(folder=root))
        with contextlib.redirect_stderr(io.StringIO()):
            assert run_suite(suite, out=whole).exit_status == 0
        expected = content(whole)
        for number in range(arguments.n):
            at = Path(root, "run")
            name, harm, outcome = trial(suite, whole, expected, at, rng, kinds)
            shutil.rmtree(at)
            outcomes[name, outcome.split()[0] if outcome.startswith("ERROR") else outcome] += 1
            wrong += outcome.startswith("ERROR")
            print(f"{number + 1:4} {name:17} {harm:10} {outcome}", flush=True)
    columns = ["named", "made again", "equal", "as it was", "ERROR"]
    print("\n" + "  ".join([f"{'file':17}", *(f"{column:>10}" for column in columns)]))
    for name in kinds:
        print("  ".join([f"{name:17}", *(f"{outcomes[name, column]:>10}" for column in columns)]))
    print(
        f"damage: {arguments.n} files damaged, {wrong} wrong, {time.monotonic() - started:.0f} s, seed {arguments.seed}"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
