"""Fuzzes by hand:

`python tests/fuzz/run.py --kind suites --n 100000 --seed 1`. An input is made anew from its kind, seed and number.
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from judge import judge, peak_mb
from kinds import KINDS


def run(kind: str, n: int, seed: int, *, first: int = 0, every_s: float = 10.0, show: bool = False) -> list[str]:
    """Tries `n` inputs; gives the bugs, each with how to make it again."""
    bugs: list[str] = []
    seen: collections.Counter[str] = collections.Counter()
    slowest, refused, said = 0.0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        for i in range(first, first + n):
            folder = Path(root) / str(i)
            folder.mkdir()
            verdict = judge(KINDS[kind](random.Random(f"{kind} {seed} {i}"), folder))
            slowest, refused = max(slowest, verdict.seconds), refused + (verdict.refused is not None)
            if show:
                print(i, verdict.refused if verdict.bug is None else verdict.bug)
            if verdict.bug is not None:
                key = verdict.bug.split(": ")[0]
                seen[key] += 1
                bugs.append(f"{kind} --seed {seed} --first {i} --n 1: {verdict.bug}")
                if seen[key] == 1:
                    print(f"{bugs[-1]}\n{verdict.details}", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            if time.monotonic() - said > every_s:
                said = time.monotonic()
                print(f"{kind}: {i + 1 - first} of {n}, {len(bugs)} bugs", file=sys.stderr, flush=True)
    for key, count in seen.most_common():
        print(f"  {count} x {key}")
    print(
        f"{kind}: {n} inputs (seed {seed}), {refused} refused in plain lines, {len(bugs)} bugs, "
        f"slowest {slowest:.1f} s, peak {peak_mb():,.0f} MB"
    )
    return bugs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--show", action="store_true", help="print each verdict")
    given = parser.parse_args()
    found = [
        run(kind, given.n, given.seed, first=given.first, show=given.show)
        for kind in (KINDS if given.kind == "all" else [given.kind])
    ]
    sys.exit(1 if any(found) else 0)
