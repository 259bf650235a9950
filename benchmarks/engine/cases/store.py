"""Stores by precision: how fast they are written and read, and what rounding activations does to the FVU."""

from __future__ import annotations

from statistics import mean
from typing import Any

import torch
from clock import timed
from material import TOPICS, Setting, Shape, at, cohort, sources, topk_cell
from report import Figure, Result, Row, ratios
from stores import BATCH, CAN_DROP, epoch, forget, rows_of, write

from saebench.activations.precision import rounded
from saebench.cells.cell import EvaluationSettings
from saebench.train import train_pass

TITLE = "activation stores: throughput by dtype, and what the dtype does to the FVU"
DTYPES = ("float32", "float16", "bfloat16")


def measure(setting: Setting) -> Result:
    """A round writes and reads a store of each precision. FVU is measured once: it does not depend on the machine."""
    d, n_rows = (64, 2 * BATCH) if setting.small else (768, 131_072)
    folder = setting.scratch / "store"
    rows = rows_of(BATCH, d)
    seconds: dict[tuple[str, str], list[float]] = {}
    n_bytes: dict[str, int] = {}
    for _ in range(setting.rounds):
        for dtype in DTYPES:

            def store(dtype: str = dtype) -> None:
                n_bytes[dtype] = write(folder, rows, n_rows, dtype)

            seconds.setdefault(("written", dtype), []).append(timed(store, setting.device))
            if CAN_DROP:
                forget(folder)
                cold = timed(epoch(folder, dtype, setting.device), setting.device)
                seconds.setdefault(("read, cold", dtype), []).append(cold)
            again = epoch(folder, dtype, setting.device)
            again()
            seconds.setdefault(("read, in the page cache", dtype), []).append(timed(again, setting.device))
    order = sorted(seconds, key=lambda key: DTYPES.index(key[1]))
    figures = [
        Figure(f"{what}: {dtype} over float32, seconds", ratios(values, seconds[what, "float32"]))
        for (what, dtype), values in seconds.items()
        if dtype != "float32"
    ]
    fvu, told = _fvu(setting)
    return Result(
        [Row(f"{dtype}, {what}", seconds[what, dtype], n_rows, n_bytes[dtype]) for what, dtype in order],
        [*figures, *fvu],
        {"rows": f"{n_rows} of width {d} with token, position and sequence, read in batches of {BATCH}", **told},
    )


def _fvu(setting: Setting) -> tuple[list[Figure], dict[str, Any]]:
    """The same cells trained on activations of the built-in model in each precision, all scored on the same held-out
    float32 rows.
    """
    shape = Shape(192, 256, 8, 512) if setting.small else Shape(192, 2048, 32, 1024)
    steps, seeds, tokens = (4, 2, 2048) if setting.small else (200, 3, 65_536)
    use = at("docs-lm", "layers.2", 128)
    data = sources(setting, "fvu", TOPICS)
    cells = [topk_cell(shape, setting.catalog, steps=steps, seed=seed, decay=0.2) for seed in range(seeds)]
    settings = EvaluationSettings(("topics",), 4 * shape.batch, 1, 1, (0,))
    found: dict[str, list[float]] = {}
    read: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    n_held_out = 0
    for dtype in DTYPES:
        source = data.training(cohort(TOPICS, shape.d_in, tokens, model=use, dtype=dtype))
        stream = data.held_out(TOPICS, use, settings, 0, training=source).stream("eval", shape.batch)
        held_out = torch.cat([batch.x for batch in stream])
        n_held_out = len(held_out)
        scores = {}
        for cell, outcome in train_pass([(cell, source) for cell in cells], setting.catalog, device=setting.device):
            if not outcome.ok:
                raise RuntimeError(f"store: {outcome.error}")
            scores[cell.init_seed] = _held_out_fvu(outcome.module, outcome.input_scale, held_out, held_out)
            if dtype == "float32":
                for other, values in read.items():
                    inputs = rounded(held_out, other).float()
                    values.append(_held_out_fvu(outcome.module, outcome.input_scale, inputs, held_out))
        found[dtype] = [scores[cell.init_seed] for cell in cells]
    base = found["float32"]
    figures = [
        Figure(
            f"FVU of cells trained on {dtype}, relative to float32, less 1; by seed",
            [r - 1 for r in ratios(found[dtype], base)],
        )
        for dtype in DTYPES[1:]
    ]
    figures += [
        Figure(
            f"FVU of cells trained on float32 that read {dtype} when scored, relative to float32, less 1; by seed",
            [r - 1 for r in ratios(read[dtype], base)],
        )
        for dtype in DTYPES[1:]
    ]
    spread = (max(base) - min(base)) / mean(base)
    return figures, {
        "FVU": f"TopK, {shape}, {steps} steps, {seeds} seeds, docs-lm at layers.2 on {source.n_tokens} tokens of "
        "Python's help topics, scored on "
        f"{n_held_out} held-out float32 rows; mean {mean(base):.4f} on float32, whose seeds lie {spread:.2g} of "
        "it apart"
    }


@torch.no_grad()
def _held_out_fvu(module: Any, scale: float, x: torch.Tensor, target: torch.Tensor) -> float:
    error = (target - scale * module.decode(module.encode(x / scale))).double().square().sum()
    return float(error / (target.double() - target.double().mean(0)).square().sum())
