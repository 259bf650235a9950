"""Twelve cells in one pass against twelve passes of one, on a live source whose forward costs about one SAE step."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch
from clock import Bare, Clock, read, same, timed, weights
from material import RANDOM_TOKENS, Setting, Shape, at, cohort, make_gpt2, sources, topk_cell
from report import Figure, Result, Row, ratios

from saebench.activations.sources.training import TrainingSource
from saebench.api import ActivationBatch
from saebench.base.random import generator
from saebench.cells.cell import ModelUse
from saebench.lm.model import LanguageModel
from saebench.train import rms_scale, train_pass
from saebench.train.feed import INIT_SAMPLE

TITLE = "12 cells in one pass against 12 passes of one, live"
FORWARD_ROWS = 4096
"""Rows of one forward of the language model; windows divide it, so that every block costs whole forwards."""


def _model(setting: Setting, shape: Shape, inner: int, context: int) -> ModelUse:
    """One layer; what it costs is decided by the width of its MLP."""
    folder = setting.scratch / f"model-{inner}"
    if not folder.exists():
        make_gpt2(folder, n_layers=1, width=shape.d_in, inner=inner, vocab=300, context=context)
    return at(folder, "layers.0", context)


def _forward_s(use: ModelUse, device: torch.device) -> tuple[float, torch.Tensor]:
    """Seconds of a forward up to the hook, a row; and what it put out."""
    lm = LanguageModel.load(use.id, None, device)
    ids = torch.randint(2, 300, (FORWARD_ROWS // use.context, use.context), generator=generator("calibrate"))
    found = lm.activations(ids, use.hookpoint)
    seconds = [timed(lambda: lm.activations(ids, use.hookpoint), device) for _ in range(5)]
    return median(seconds) / ids.numel(), found.flatten(0, 1)


def _step_s(setting: Setting, shape: Shape, rows: torch.Tensor, steps: int) -> tuple[Bare, ActivationBatch, float]:
    """A bare SAE on these rows, a batch for it, and its seconds a token."""
    cell = topk_cell(shape, setting.catalog, steps=100_000)
    bare = Bare(cell, setting.catalog, rows, rms_scale(rows), setting.device)
    batch = bare.scaled(ActivationBatch(rows[: shape.batch], rows[: shape.batch]))
    seconds = [timed(lambda: bare.step(batch), setting.device) for _ in range(2 * steps)]
    return bare, batch, median(seconds[steps:]) / shape.batch


def _calibrated(setting: Setting, shape: Shape, context: int) -> int:
    """Width of the MLP at which a forward costs one SAE step, from a straight line through two widths."""
    narrow, wide = (64, 256) if setting.small else (512, 4096)
    low, rows = _forward_s(_model(setting, shape, narrow, context), setting.device)
    high, _ = _forward_s(_model(setting, shape, wide, context), setting.device)
    _, _, step = _step_s(setting, shape, rows, 2 if setting.small else 10)
    slope = (high - low) / (wide - narrow)
    inner = narrow + (step - low) / slope if slope > 0 else float(wide)
    return int(min(max(inner, 64), 4 * wide) // 64 * 64)


def measure(setting: Setting) -> Result:
    """A round: half of the passes of one, the pass of all, the other half; reading and stepping alone beside them."""
    shape = Shape(32, 128, 4, 1024) if setting.small else Shape(512, 8192, 32, 2048)
    n_cells, context, forwards = (3, 16, 1) if setting.small else (12, 128, 2)
    device, catalog = setting.device, setting.catalog
    block = forwards * FORWARD_ROWS
    warm = block // shape.batch  # the first block; then two more
    steps = 3 * warm
    inner = _calibrated(setting, shape, context)
    use = _model(setting, shape, inner, context)
    data = sources(setting, "cohort", RANDOM_TOKENS)
    live_cohort = cohort(RANDOM_TOKENS, shape.d_in, 2 * block, model=use, shuffle=block, live=True)
    cells = [topk_cell(shape, catalog, steps=steps, seed=seed) for seed in range(n_cells)]
    sample = data.training(live_cohort).init_sample(INIT_SAMPLE)

    def fresh() -> TrainingSource:
        return data.training(live_cohort)

    def run(chosen: list[Any]) -> tuple[float, dict[int, dict[str, torch.Tensor]]]:
        """Seconds of the timed batches of one pass, and the weights it ended with."""
        clock = Clock(fresh(), sample, device)
        ended = {}
        for cell, outcome in train_pass([(cell, clock) for cell in chosen], catalog, device=device):
            if not outcome.ok:
                raise RuntimeError(f"cohort: {outcome.error}")
            ended[cell.init_seed] = weights(outcome.module)
        return sum(clock.spans[warm:]), ended

    bare, batch, _ = _step_s(setting, shape, sample, 2 if setting.small else 10)
    together, apart, forward_s, step_s = [], [], [], []
    equal = True
    for _ in range(setting.rounds):
        forward_s.append(sum(read(fresh(), cells[0], steps, device)[warm:]))
        step_s.append(median(timed(lambda: bare.step(batch), device) for _ in range(warm)) * (steps - warm))
        before = [run([cell]) for cell in cells[: n_cells // 2]]
        seconds, ended = run(cells)
        after = [run([cell]) for cell in cells[n_cells // 2 :]]
        together.append(seconds)
        apart.append(sum(seconds for seconds, _ in before + after))
        for _, alone in before + after:
            equal &= all(same(values, ended[seed]) for seed, values in alone.items())
    tokens = (steps - warm) * shape.batch
    shares = ratios(forward_s, step_s)
    return Result(
        [
            Row("reading live, without training", forward_s, tokens),
            Row("bare SAE steps on a batch at hand", step_s, tokens),
            Row(f"one pass of {n_cells}", together, n_cells * tokens),
            Row(f"{n_cells} passes of one", apart, n_cells * tokens),
        ],
        [
            Figure(f"one pass of {n_cells} over {n_cells} passes of one", ratios(together, apart), 0.6, 0.56),
            Figure("live forward over SAE step", shares),
            Figure(
                "ideal at that ratio r: (r + n) / n(r + 1)",
                [(share + n_cells) / (n_cells * (share + 1)) for share in shares],
            ),
        ],
        {
            "sizes": str(shape),
            "model": f"GPT-2 with random weights, 1 layer, width {shape.d_in}, MLP {inner}, windows of {context}",
            "steps a pass": f"{warm} untimed, {steps - warm} timed; building cells and the first sample are left out",
            "each cell ended with the same weights in both, bit for bit": "yes" if equal else "no",
        },
    )
