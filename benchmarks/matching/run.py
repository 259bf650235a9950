"""Time, memory and certificate of exact matching as dictionaries grow, beside SciPy's dense solver in the same run.

python benchmarks/matching/decoders.py --material MATERIAL      # trains the decoders, once: two hours on two cores
python benchmarks/matching/run.py                               # all cases up to 65,536
python benchmarks/matching/run.py --sizes 131072 --rounds 1     # the largest, once
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tabulate import tabulate

WIDTH = 256
MB = 1_000_000
DENSE_TO = 16_384
"""Above, the dense matrix and SciPy's copy of it need tens of gigabytes and many minutes."""


def pair(kind: str, n: int, decoders: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Two dictionaries `[n, 256]` float32:

    `sae` trained decoders, `mix` 40 % of cosine .95, 20 % of .5, the rest unrelated, `rand` unrelated.
    """
    if kind == "sae":
        from safetensors.torch import load_file

        a, b = (load_file(decoders / f"{n}-s{seed}.safetensors")["W_dec"] for seed in (0, 1))
        return a, b
    generator = torch.Generator().manual_seed(n)

    def unit(shape: tuple[int, int]) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)

    A, B = unit((n, WIDTH)), unit((n, WIDTH))
    if kind == "mix":
        first, second = int(0.4 * n), int(0.6 * n)
        for rows, cosine in ((slice(0, first), 0.95), (slice(first, second), 0.5)):
            noise = B[rows] - (B[rows] * A[rows]).sum(1, keepdim=True) * A[rows]
            B[rows] = cosine * A[rows] + (1 - cosine**2) ** 0.5 * torch.nn.functional.normalize(noise, dim=1)
        B = B[torch.randperm(n, generator=generator)]
    return A, B


def dense(A: torch.Tensor, B: torch.Tensor) -> dict[str, Any]:
    """What a user of SciPy writes: all cosines in float64, `linear_sum_assignment`."""
    from scipy.optimize import linear_sum_assignment

    unit = [(x.double() / x.double().norm(dim=1, keepdim=True)).numpy() for x in (A, B)]
    cosines = unit[0] @ unit[1].T
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return {"total": float(cosines[rows, columns].sum())}


def ours(A: torch.Tensor, B: torch.Tensor, solver: str) -> dict[str, Any]:
    """`match`, its certificate included."""
    from saebench.matching import match

    found = match(A, B, solver=solver)
    return {"total": found.total, "gap": found.relative_gap, "proven": found.proven, **found.facts}


def work(kind: str, n: int, method: str, decoders: Path, rounds: int) -> dict[str, Any]:
    """Median of `rounds` calls in this process, and the most memory it held over what it held before the first one."""
    import scipy.optimize
    import scipy.sparse.csgraph  # noqa: F401 - imports are not part of the time

    from saebench.matching import match

    A, B = pair(kind, n, decoders)
    match(A[:1100], B[:1100], method="sparse")
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds, result = [], {}
    for _ in range(rounds):
        started = time.perf_counter()
        result = dense(A, B) if method == "dense" else ours(A, B, method)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": statistics.median(seconds), "rss_bytes": peak, "over_base_bytes": peak - base, **result}


def measure(
    cases: list[tuple[str, int, str]], decoders: Path, rounds: int, threads: int, done: dict[str, Any], save: Any
) -> None:
    """Every case `rounds` times in processes of its own, taking turns; small ones several times in each."""
    for turn in range(rounds):
        for kind, n, method in cases:
            key = f"{kind} {n} {method}"
            inner = 7 if n <= 2048 else 1
            command = [
                sys.executable,
                __file__,
                "--worker",
                kind,
                str(n),
                method,
                "--decoders",
                str(decoders),
                "--rounds",
                str(inner),
                "--threads",
                str(threads),
            ]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                click.echo(f"{key}: failed: {answer.stderr.strip().splitlines()[-1:]}", err=True)
                continue
            found = json.loads(answer.stdout)
            done.setdefault(key, []).append(found)
            save()
            click.echo(
                f"{turn + 1}/{rounds} {key}: {found['seconds']:.3f} s, {found['over_base_bytes'] / MB:,.0f} MB, gap "
                f"{found.get('gap')}",
                err=True,
            )


def table(done: dict[str, Any]) -> str:
    """Medians over rounds with lowest and highest; ratios within a round."""
    rows = []
    places = sorted({tuple(key.split()[:2]) for key in done}, key=lambda place: (place[0], int(place[1])))
    for kind, n in places:
        base = done.get(f"{kind} {n} dense")
        for method in ("dense", "scipy", "ortools"):
            found = done.get(f"{kind} {n} {method}")
            if not found:
                continue
            seconds = [one["seconds"] for one in found]
            memory = statistics.median(one["over_base_bytes"] for one in found)
            faster = memory_ratio = ""
            if base and method != "dense":
                pairs = list(zip(base, found, strict=False))
                faster = f"{statistics.median(b['seconds'] / f['seconds'] for b, f in pairs):.2f}"
                theirs = statistics.median(one["over_base_bytes"] for one in base)
                memory_ratio = f"{memory / theirs:.2f}" if theirs > 50 * MB else ""
            agrees = ""
            if base and method != "dense":
                agrees = f"{abs(found[0]['total'] - base[0]['total']) / base[0]['total']:.0e}"
            rows.append([
                kind, f"{int(n):,}", {"dense": "dense SciPy", "scipy": "ours", "ortools": "ours, OR-tools"}[method],
                f"{statistics.median(seconds):.3g} ({min(seconds):.3g} to {max(seconds):.3g})", faster,
                f"{memory / MB:,.0f}", memory_ratio,
                "" if method == "dense" else f"{found[0]['gap']:.0e}", found[0].get("rounds", ""), agrees,
            ])  # fmt: skip
    heads = [
        "pair",
        "latents",
        "method",
        "seconds",
        "times faster",
        "MB over base",
        "of dense",
        "proven gap",
        "rounds",
        "total off dense",
    ]
    return tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)


@click.command()
@click.option("--sizes", default="256,512,1024,2048,4096,8192,16384,32768,65536")
@click.option("--kinds", default="sae,mix,rand")
@click.option("--rounds", default=3)
@click.option("--threads", default=2)
@click.option("--decoders", type=click.Path(path_type=Path), default=Path("runs/matching/decoders"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/matching"))
@click.option("--worker", nargs=3, default=None, hidden=True)
def main(
    sizes: str, kinds: str, rounds: int, threads: int, decoders: Path, out: Path, worker: tuple[str, str, str] | None
) -> None:
    """Writes OUT/matching.json and matching.md after every case."""
    torch.set_num_threads(threads)
    if worker is not None:
        kind, n, method = worker
        print(
            json.dumps(
                work(kind, int(n), method, decoders, rounds),
                default=lambda x: x.item() if isinstance(x, np.generic) else str(x),
            )
        )
        return
    out.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = {}
    cases = []
    for n in map(int, sizes.split(",")):
        for kind in kinds.split(","):
            if kind == "sae" and not (decoders / f"{n}-s1.safetensors").is_file():
                continue
            cases += [(kind, n, "dense")] if n <= DENSE_TO else []
            cases += [(kind, n, "scipy")] + ([(kind, n, "ortools")] if n > 1024 else [])

    def save() -> None:
        facts = {"python": platform.python_version(), "torch": torch.__version__, "threads": threads, "width": WIDTH}
        (out / "matching.json").write_text(
            json.dumps({"facts": facts, "done": done}, indent=1) + "\n", encoding="utf-8"
        )
        (out / "matching.md").write_text(table(done) + "\n", encoding="utf-8")

    measure(cases, decoders, rounds, threads, done, save)
    click.echo(table(done))


if __name__ == "__main__":
    main()
