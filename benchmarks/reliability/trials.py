"""One run in a child process, with or without a fault, and what it left behind.

The parent imports everything once and forks: a trial costs the run alone, not the imports. `faults.c` is loaded with
LD_PRELOAD.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OPS = ("write", "read", "fsync", "rename", "create", "unlink", "mkdir")
KILL_BEFORE, KILL_AFTER = -1, -2
TIMEOUT_S = 300

SUITE = """
schema: 1
name: reliability
models:
  - {id: model, hookpoints: [layers.1], context: 32}
datasets:
  mine: {plugin: local, path: text.txt}
  own: {plugin: faithful, tokens: 2_000}
entries:
  - {name: topk, architecture: topk, dataset: mine, config: {d_sae: 64, k: 4}}
  - {name: faithful, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}}
  - {name: ssae, architecture: ssae, dataset: mine, init_from: topk, config: {tilt: 1.0}}
train: {batch: 128}
evaluation: {datasets: [mine], tokens: 1_000, loss_tokens: 256, density_tokens: 1_000}
budget: {primary: tokens, tokens: 2_000}
seeds: {init: [0, 1]}
"""
WORDS = ["socket", "file", "tree", "path", "walk", "read", "write", "open", "close", "node", "edge", "graph", "list"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong: from the `nth` call of `op` on files of the run folder. `action` is an errno or a kill."""

    op: str = "write"
    nth: int = 0
    action: int = 0
    for_good: bool = False
    bytes_left: int = -1


@dataclass(frozen=True)
class Ended:
    """How a trial ended: exit status (negative: the signal), what it printed, seconds."""

    status: int
    printed: str
    seconds: float


def preload() -> None:
    """Starts this program again with the faults loaded, once."""
    if "SAEBENCH_FAULTS" in os.environ:
        return
    library = Path(tempfile.mkdtemp(prefix="saebench-faults-")) / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "SAEBENCH_FAULTS": str(library), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def material(folder: Path) -> None:
    """Model, text and suite; the working directory is `folder` from here on."""
    from saebench.testing import make_model

    folder.mkdir(parents=True, exist_ok=True)
    make_model(folder / "model", "llama")
    rng = random.Random(0)
    text = "\n\n".join(" ".join(rng.choices(WORDS, k=40)) + "." for _ in range(300))
    (folder / "text.txt").write_text(text)
    (folder / "suite.yaml").write_text(SUITE)
    os.chdir(folder)


def _in_child(body: Callable[[], int], out: Path, kill_after_s: float | None, n: int) -> Ended:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        status = 1
        try:
            status = body()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    deadline = started + TIMEOUT_S
    while True:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            break
        now = time.monotonic()
        if (kill_after_s is not None and now - started > kill_after_s) or now > deadline:
            os.kill(child, n)
            _, code = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    return Ended(os.waitstatus_to_exitcode(code), out.read_text(errors="replace"), time.monotonic() - started)


def run(
    folder: Path, fault: Fault | None = None, *, kill_after_s: float | None = None, n: int = signal.SIGKILL
) -> Ended:
    """`saebench run suite.yaml --out folder` in a child.

    Args:
        folder: Run folder.
        fault: What goes wrong in it; None: nothing, but calls are counted into `folder.counts`.
        kill_after_s: Sends signal `n` then.
    """
    from saebench.cli import main

    library = ctypes.CDLL(os.environ["SAEBENCH_FAULTS"])
    library.faults_count.restype = ctypes.c_long
    planned = fault or Fault()

    def body() -> int:
        library.faults_arm(
            str(folder.resolve()).encode(), OPS.index(planned.op), ctypes.c_long(planned.nth), int(planned.for_good),
            planned.action, ctypes.c_longlong(planned.bytes_left),
        )  # fmt: skip
        try:
            main(["run", "suite.yaml", "--out", str(folder)])
        except SystemExit as ended:
            return int(ended.code or 0)
        finally:
            library.faults_disarm()
            counts = " ".join(str(library.faults_count(index)) for index in range(len(OPS)))
            folder.with_suffix(".counts").write_text(counts)
        return 0

    return _in_child(body, folder.with_suffix(".log"), kill_after_s, n)


def counts(folder: Path) -> dict[str, int]:
    """Calls of each kind that the last run that ended in order made on files of the folder."""
    return dict(zip(OPS, map(int, folder.with_suffix(".counts").read_text().split()), strict=True))


def leftovers(folder: Path) -> list[str]:
    """Temporary names that a finished run should not leave."""
    return [str(path) for path in folder.rglob(".*") if path.name.endswith((".tmp", ".old"))]


def clean(folder: Path) -> None:
    """Removes what a trial wrote."""
    shutil.rmtree(folder, ignore_errors=True)
    for suffix in (".log", ".counts"):
        folder.with_suffix(suffix).unlink(missing_ok=True)
