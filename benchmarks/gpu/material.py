"""What sections train and time: clocks, activations, the six architectures as cells, a source of vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from saebench.api import ActivationBatch
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings, TrainSettings
from saebench.host import Catalog

ARCHITECTURES = ("topk", "batch-topk", "jumprelu", "relu-l1", "expander", "ssae")
PARENT = "topk"


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(action: Callable[[], object], device: torch.device, times: int) -> float:
    """Median of some calls, after one that does not count."""
    taken = []
    for _ in range(times + 1):
        wait(device)
        started = perf_counter()
        action()
        wait(device)
        taken.append(perf_counter() - started)
    return median(taken[1:])


def activations(n: int, d_in: int, device: torch.device, seed: int = 0) -> Tensor:
    """`[n, d_in]` float32, made on the device: 2 % of 4 d_in random unit features, a mean, noise; E||x||^2 = d_in."""
    draws = torch.Generator(device=device).manual_seed(seed)

    def random(kind: Any, *shape: int) -> Tensor:
        made: Tensor = kind(*shape, generator=draws, device=device)
        return made

    features = torch.nn.functional.normalize(random(torch.randn, 4 * d_in, d_in), dim=1)
    x = 0.1 + 0.01 * random(torch.randn, n, d_in)
    for rows in x.split(4096):
        active = random(torch.rand, len(rows), 4 * d_in)
        rows += torch.where(active < 0.02, 50 * active, 0.0) @ features
    return x / (x.square().sum(1).mean() / d_in).sqrt()


@dataclass(frozen=True)
class Sizes:
    """Of the cells."""

    d_in: int
    d_sae: int
    k: int
    batch: int
    steps: int


def cell_of(name: str, sizes: Sizes, catalog: Catalog, *, parent: Cell | None = None) -> Cell:
    """A cell of an architecture at its own defaults; `ssae` starts from `parent`."""
    sparsity: dict[str, dict[str, Any]] = {
        "jumprelu": {"target_l0": float(sizes.k)},
        "relu-l1": {"l1_coefficient": 0.5, "resample_at": (0.5,)},
        "expander": {"k": sizes.k, "degree": 8},
    }
    spec = catalog.architecture(name).spec
    base = None
    if name == "ssae":
        assert parent is not None
        base, config = parent.part, {"tilt": 1.0}
    else:
        config = {"d_sae": sizes.d_sae, **sparsity.get(name, {"k": sizes.k})}
    defaults = spec.train
    lr = defaults.lr * (defaults.reference_width / sizes.d_sae) ** 0.5
    part = ArchitectureUse(name, spec.version, dataclasses.asdict(spec.config(**config)))
    train = TrainSettings(sizes.batch, lr, defaults.betas, defaults.eps, defaults.clip, 0.05, 0.2, "rms")
    dataset = DatasetUse("vectors", "vectors", "1", "activations", {}, "vectors")
    return Cell(
        cell_id=f"{name}-{sizes.steps}".ljust(64, "0"), score_id="s", suite="gpu-check", entry=name, point="default",
        sweep={}, where="gpu-check", part=part,
        base=base, d_in=sizes.d_in, d_out=sizes.d_in, d_sae=sizes.d_sae, tags=(), model=None, dataset=dataset,
        evaluation=EvaluationSettings((), 1, 1, 1, (0,)), evaluation_datasets=(), init_seed=0, data_seed=0,
        parent=parent.cell_id if parent else None, train=train, tokens=sizes.steps * sizes.batch, control=False,
        expected_l0=None, cohort="c", group="g",
    )  # fmt: skip


class Vectors:
    """A training source over rows that are held in memory, in an order of the seed's own."""

    forward_flops_per_token = 0

    def __init__(self, x: Tensor) -> None:
        self._x, self.d_in, self.n_tokens = x, x.shape[1], len(x)
        self.data_cost, self.data_s, self.forward_s = {"tokens": 0, "flops": 0}, 0.0, 0.0

    def init_sample(self, n: int) -> Tensor:
        """See `TrainingSource`."""
        return self._x[:n]

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        """See `TrainingSource`."""
        index, epoch = 0, 0
        while True:
            order = torch.randperm(self.n_tokens, generator=torch.Generator().manual_seed(1000 * seed + epoch))
            for rows in order.split(batch):
                if len(rows) == batch:
                    if index >= start:
                        x = self._x[rows]
                        yield ActivationBatch(x, x)
                    index += 1
            epoch += 1
