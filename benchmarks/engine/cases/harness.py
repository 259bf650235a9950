"""What the training loop adds to its steps: two SAEs with the same bits take turns, one in `train_pass`, one in a bare
loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median

from clock import Bare, Clock, same, timed, weights
from material import Setting, Shape, cohort, sources, topk_cell, vectors
from report import Figure, Result, Row, ratios

from saebench.api import ActivationBatch
from saebench.nn.kernels import backends
from saebench.train import rms_scale, train_pass
from saebench.train.feed import INIT_SAMPLE

TITLE = "the whole training loop over a store on disk against the bare kernel"


def measure(setting: Setting) -> Result:
    """A round is a pass of its own, from the first weight on; before each step the bare SAE takes the same one."""
    shape = Shape(64, 256, 8, 256) if setting.small else Shape(512, 8192, 32, 2048)
    warm, steps = (2, 6) if setting.small else (20, 60)
    device, catalog = setting.device, setting.catalog
    use = vectors(shape.d_in)
    source = sources(setting, "harness", use).training(cohort(use, shape.d_in, 16 * shape.batch))
    sample = source.init_sample(INIT_SAMPLE)
    whole: list[list[float]] = []
    bare: list[list[float]] = []
    equal = True
    for seed in range(setting.rounds):
        cell = topk_cell(shape, catalog, steps=steps, seed=seed)
        kernel = Bare(cell, catalog, sample, rms_scale(sample), device)
        ahead = source.batches(shape.batch, cell.data_seed)
        spans: list[float] = []

        def between(
            _index: int, kernel: Bare = kernel, ahead: Iterator[ActivationBatch] = ahead, spans: list[float] = spans
        ) -> None:
            batch = kernel.scaled(next(ahead))
            spans.append(timed(lambda: kernel.step(batch), device))

        clock = Clock(source, sample, device, between)
        ((_, outcome),) = train_pass([(cell, clock)], catalog, device=device)
        if not outcome.ok:
            raise RuntimeError(f"harness: {outcome.error}")
        equal &= same(weights(kernel.module), weights(outcome.module))
        whole.append(clock.spans[warm:])
        bare.append(spans[warm:])
    whole_s, bare_s = [median(spans) for spans in whole], [median(spans) for spans in bare]
    return Result(
        [
            Row("a step of the bare kernel", bare_s, shape.batch),
            Row("a step of train_pass, its batch read from the store", whole_s, shape.batch),
        ],
        [
            Figure("train_pass over bare kernel", ratios(whole_s, bare_s), 1.08, 1.03),
            Figure(
                "the same of mean steps, where the monitor's 12 closer looks count as in a run this short",
                ratios([mean(spans) for spans in whole], [mean(spans) for spans in bare]),
            ),
        ],
        {
            "sizes": str(shape),
            "steps a round": f"{warm} untimed, {steps - warm} timed",
            "back end": backends.current(device),
            "both ended with the same weights, bit for bit": "yes" if equal else "no",
        },
    )
