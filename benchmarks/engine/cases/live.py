"""Live at GPT-2-small size: stopping at the hook, sharing the forward between seeds, not computing it twice."""

from __future__ import annotations

from typing import Any

import torch
from clock import Clock, read, timed
from material import RANDOM_TOKENS, Setting, Shape, at, cohort, make_gpt2, sources, topk_cell
from report import Figure, Result, Row, ratios
from stores import BATCH, CAN_DROP, epoch, forget, rows_of, write

from saebench.base.random import generator
from saebench.train import train_pass

TITLE = "live activations at GPT-2-small size"
FORWARD_ROWS = 4096
SEEDS = 4


def measure(setting: Setting) -> Result:
    """A round: the three forwards on the same ids, the four seeds both ways, an epoch each way."""
    small, device, catalog = setting.small, setting.device, setting.catalog
    shape = Shape(64, 128, 4, 1024) if small else Shape(768, 8192, 32, 2048)
    n_layers, vocab, context, hook = (2, 300, 16, "layers.0") if small else (12, 50_257, 512, "layers.6")
    n_stored = 2 * BATCH if small else 131_072
    folder = make_gpt2(
        setting.scratch / "gpt2", n_layers=n_layers, width=shape.d_in, inner=4 * shape.d_in, vocab=vocab,
        context=max(context, 1024)
    )  # fmt: skip
    use = at(folder, hook, context)
    data = sources(setting, "live", RANDOM_TOKENS)
    lm = data.context.model(use)
    body: Any = lm.model.get_submodule(lm.model.base_model_prefix)
    ids = torch.randint(2, vocab, (4, context), generator=generator("forward")).to(device)
    # two forwards of one block each; a pass reads the first: half of the stream
    live_cohort = cohort(RANDOM_TOKENS, shape.d_in, 2 * FORWARD_ROWS, model=use, shuffle=FORWARD_ROWS, live=True)
    steps = FORWARD_ROWS // shape.batch
    cells = [topk_cell(shape, catalog, steps=steps, seed=seed) for seed in range(SEEDS)]
    sample = data.training(live_cohort).init_sample(FORWARD_ROWS)
    store = setting.scratch / "cached"
    n_bytes = write(store, rows_of(BATCH, shape.d_in), n_stored, "float32")

    def whole() -> None:
        lm.run(ids)

    @torch.no_grad()
    def headless() -> None:
        body(input_ids=ids, use_cache=False)

    def stopped() -> None:
        lm.activations(ids, use.hookpoint)

    def run(chosen: list[Any]) -> float:
        clock = Clock(data.training(live_cohort), sample, device)
        for _, outcome in train_pass([(cell, clock) for cell in chosen], catalog, device=device):
            if not outcome.ok:
                raise RuntimeError(f"live: {outcome.error}")
        return sum(clock.spans)

    forwards = {"full forward": whole, "forward without the head": headless, f"forward that stops at {hook}": stopped}
    seconds: dict[str, list[float]] = {name: [] for name in forwards}
    together, apart, live, warm, cold = [], [], [], [], []
    stopped()
    for _ in range(setting.rounds):
        for name, forward in forwards.items():
            seconds[name].append(timed(forward, device))
        before = [run([cell]) for cell in cells[: SEEDS // 2]]
        together.append(run(cells))
        apart.append(sum(before) + sum(run([cell]) for cell in cells[SEEDS // 2 :]))
        live.append(sum(read(data.training(live_cohort), cells[0], steps, device)))
        if CAN_DROP:
            forget(store)
            cold.append(timed(epoch(store, "float32", device), device))
        again = epoch(store, "float32", device)
        again()
        warm.append(timed(again, device))
    whole_s, _, stopped_s = seconds.values()
    rows = [Row(name, values, ids.numel()) for name, values in seconds.items()]
    rows += [
        Row(f"{SEEDS} seeds in one pass", together, SEEDS * FORWARD_ROWS),
        Row(f"{SEEDS} runs of one seed", apart, SEEDS * FORWARD_ROWS),
        Row("reading live, without training", live, FORWARD_ROWS),
        Row("a cached epoch, in the page cache", warm, n_stored, n_bytes),
    ]
    figures = [
        Figure(f"full forward over one that stops at {hook}", ratios(whole_s, stopped_s), 2.2, 3, most=False),
        Figure(f"{SEEDS} runs over one pass of {SEEDS}", ratios(apart, together), 2.5, 3, most=False),
        Figure(
            "computing a token over reading it from the page cache", _a_token(live, warm, n_stored), 50, 75, most=False
        ),
    ]
    if cold:
        rows.append(Row("a cached epoch, cold", cold, n_stored, n_bytes))
        figures.append(
            Figure("computing a token over reading it cold", _a_token(live, cold, n_stored), 50, 75, most=False)
        )
    return Result(
        rows,
        figures,
        {
            "model": f"GPT-2 with random weights, {n_layers} layers, width {shape.d_in}, vocabulary {vocab}, "
            f"float32; {len(ids)} windows of {context} a forward",
            "SAE": str(shape),
            "a pass": f"{steps} steps, without building cells and the first sample",
        },
    )


def _a_token(live: list[float], read_s: list[float], n_read: int) -> list[float]:
    return ratios([seconds / FORWARD_ROWS for seconds in live], [seconds / n_read for seconds in read_s])
