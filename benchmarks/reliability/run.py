"""Runs that are killed or refused by the disk, and whether the same command then ends with the facts of an undisturbed
run.

    python benchmarks/reliability/run.py renames            killed before and after every rename
    python benchmarks/reliability/run.py instants -n 100    killed at random instants, up to three times
    python benchmarks/reliability/run.py terms -n 20        the same with SIGTERM: in order, status 143
    python benchmarks/reliability/run.py errors             ENOSPC, EIO, EDQUOT at writes, fsyncs, renames; EIO at reads
    python benchmarks/reliability/run.py full -n 20         a disk that is full after so many bytes

Linux and a C compiler are needed. `--stride 5` tries every fifth call only, `--in-turn` gives every call one of the
three errors.
"""

from __future__ import annotations

import argparse
import errno
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from trials import KILL_AFTER, KILL_BEFORE, OPS, Ended, Fault, clean, counts, leftovers, material, preload, run

Trial = tuple[str, Fault | None, float | None, int]
REFUSED, TERMINATED = 5, 143
REFUSABLE = ("write", "fsync", "rename", "read")


def trials(arguments: argparse.Namespace, calls: dict[str, int], seconds: float) -> Iterator[Trial]:
    """Label, fault, seconds until a signal, the signal."""
    kind, n, stride = arguments.kind, arguments.n, arguments.stride
    rng = random.Random(arguments.seed)
    if kind == "renames":
        for nth in range(1, calls["rename"] + 1, stride):
            for action in (KILL_BEFORE, KILL_AFTER):
                yield (
                    f"rename {nth} {'before' if action == KILL_BEFORE else 'after'}",
                    Fault("rename", nth, action),
                    None,
                    0,
                )
    elif kind in ("instants", "terms"):
        for index in range(n):
            at = rng.uniform(0.02, seconds)
            yield f"instant {index} at {at:.2f} s", None, at, signal.SIGKILL if kind == "instants" else signal.SIGTERM
    elif kind == "errors":
        for op in arguments.ops:
            numbers = (errno.ENOSPC, errno.EIO, errno.EDQUOT) if op != "read" else (errno.EIO,)
            for nth in range(1, calls[op] + 1, stride):
                for number in (numbers[nth // stride % len(numbers)],) if arguments.in_turn else numbers:
                    yield f"{op} {nth} {errno.errorcode[number]}", Fault(op, nth, number), None, 0
    elif kind == "full":
        total = rng.uniform(0.9, 1.0) * calls["bytes"]
        for index in range(n):
            left = int(total * index / n)
            yield f"full after {left} bytes", Fault(bytes_left=left), None, 0


def problem(kind: str, first: Ended, second: Ended, folder: Path, reference: Path) -> str | None:
    """What is wrong with a trial, or None."""
    from saebench.api.errors import SaebenchError
    from saebench.leaderboard import diff

    allowed = {
        "renames": {-signal.SIGKILL, 0}, "instants": {-signal.SIGKILL, 0}, "terms": {TERMINATED, 0},
        "errors": {REFUSED, 0}, "full": {REFUSED, 0},
    }[kind]  # fmt: skip
    if first.status not in allowed:
        return f"ended with {first.status}: {last_line(first)}"
    if "this is a bug" in first.printed or "Traceback" in first.printed:
        return f"a bug: {last_line(first)}"
    if second.status != 0:
        return f"the same command again ended with {second.status}: {last_line(second)}"
    try:
        if differences := diff(reference, folder):
            return f"facts differ: {differences[0]}"
    except SaebenchError as error:
        return f"facts cannot be compared: {error}"
    if found := leftovers(folder):
        return f"left {found[0]}"
    return None


def last_line(ended: Ended) -> str:
    """The last line that a trial printed."""
    lines = [line for line in ended.printed.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "(nothing printed)"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["renames", "instants", "terms", "errors", "full"])
    parser.add_argument("-n", type=int, default=20, help="trials, where they are random")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument(
        "--in-turn", action="store_true", help="errors: one of the three a call, in place of each of them"
    )
    parser.add_argument("--ops", nargs="+", default=REFUSABLE, choices=REFUSABLE, help="errors: of these calls alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the folders of trials that went wrong")
    arguments = parser.parse_args()
    preload()

    from saebench.execute.pipeline import Pipeline

    # snapshots at every step that may take one, so that a run of seconds has some
    Pipeline.__init__.__kwdefaults__["snapshot_every_s"] = 0.05
    import datasets  # noqa: F401  imported once here, not in every trial
    import transformers  # noqa: F401

    import saebench.jobs  # noqa: F401
    from saebench.leaderboard.pages import html

    # the page is written as ever; its interactive charts take longer than all else of this small run and touch no file
    html.site_charts, html.spend_charts = (lambda *_: []), (lambda _: {})
    html.agreement_charts = lambda _: {"seeds": [], "across": []}

    home = Path(tempfile.mkdtemp(prefix="saebench-reliability-"))
    material(home)
    reference = home / "reference"
    undisturbed = run(reference)
    if undisturbed.status != 0:
        sys.exit(f"the undisturbed run ended with {undisturbed.status}: {last_line(undisturbed)}")
    again = home / "again"
    run(again)  # the first one also filled caches outside the folder
    calls = counts(again)
    calls["bytes"] = sum(path.stat().st_size for path in again.rglob("*") if path.is_file())
    print(f"undisturbed: {undisturbed.seconds:.1f} s, {calls}", flush=True)

    started, wrong, statuses = time.monotonic(), [], Counter()
    planned = list(trials(arguments, calls, undisturbed.seconds))
    rng = random.Random(arguments.seed + 1)
    for index, (label, fault, at, sent) in enumerate(planned):
        folder = home / f"trial-{index}"
        first = run(folder, fault, kill_after_s=at, n=sent)
        for _ in range(rng.randrange(3) if arguments.kind == "instants" else 0):
            run(folder, None, kill_after_s=rng.uniform(0.02, undisturbed.seconds))
        second = run(folder)
        statuses[first.status] += 1
        if found := problem(arguments.kind, first, second, folder, reference):
            wrong.append(f"{label}: {found}")
            print(f"WRONG {wrong[-1]}", flush=True)
            if arguments.keep:
                continue
        clean(folder)
        if (index + 1) % 20 == 0:
            print(f"{index + 1} of {len(planned)}, {len(wrong)} wrong, {time.monotonic() - started:.0f} s", flush=True)
    ends = ", ".join(f"status {status}: {count}" for status, count in sorted(statuses.items()))
    print(f"{arguments.kind}: {len(planned)} trials, {len(wrong)} wrong ({ends}), {time.monotonic() - started:.0f} s")
    if not (arguments.keep and wrong):
        shutil.rmtree(home, ignore_errors=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    assert set(OPS) >= {"write", "read", "fsync", "rename"}
    main()
