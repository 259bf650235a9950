"""One architecture with one config, built, trained and asked on demand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from saebench.api import ActivationBatch, ArchitectureSpec, LossTerms, Site, SparseCodes, StepInfo
from saebench.api.errors import contained
from saebench.api.specs import resolve
from saebench.cells.cell import TrainSettings
from saebench.host.sae_contract import normalise_codes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SETTLE_STEPS, LEARN_BATCH, LEARN_RATE = 4, 256, 2e-3
FIRST = StepInfo(index=0, progress=0.0, tokens_seen=0, tokens_allotted=10_000)

Observe = Callable[[ActivationBatch, LossTerms, float], object]


def example_activations(n: int, d_in: int, seed: int = 0) -> Tensor:
    """`[n, d_in]` float32: sparse features in superposition plus a mean and noise, scaled so that E||x||^2 = d_in."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(4 * d_in, d_in, generator=generator), dim=1)
    active = (torch.rand(n, 4 * d_in, generator=generator) < 0.02).float() * torch.rand(
        n, 4 * d_in, generator=generator
    )
    x = active @ features + 0.1 + 0.01 * torch.randn(n, d_in, generator=generator)
    return x / (x.square().sum(1).mean() / d_in).sqrt()


class Case:
    """One architecture with one config.

    Attributes:
        spec, config, d_in: What is checked, and the width of the example activations.
        base: Makes the module that a wrapper wraps.
        x: `[1024, d_in]` example activations.
        other_process: Whether a checkpoint is also loaded in a new process.
    """

    def __init__(
        self,
        spec: ArchitectureSpec,
        config: Any,
        d_in: int,
        base: Callable[[], torch.nn.Module] | None,
        *,
        other_process: bool = True,
    ) -> None:
        self.spec, self.config, self.d_in, self.base, self.other_process = spec, config, d_in, base, other_process
        self.site = Site(d_in, d_in, "example", "example")
        self.x = example_activations(1024, d_in)

    def resized(self, d_in: int) -> Case:
        """The same architecture at another width."""
        return Case(self.spec, self.config, d_in, self.base, other_process=self.other_process)

    def build(self, seed: int = 0, *, prepared: bool = True) -> Any:
        """A module as `build` makes it; `prepared`: with its first values from data, as training finds it."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        more = {"base": self.base()} if self.base else {}
        sae: Any = resolve(self.spec.build)(self.config, site=self.site, generator=generator, **more)
        if prepared:
            self.prepare(sae, generator)
        return sae

    def prepare(self, sae: Any, generator: torch.Generator) -> None:
        """What comes before the first step: values from data, or a fit."""
        if hasattr(sae, "init_from_data"):
            sae.init_from_data(self.x.clone(), generator)
        if hasattr(sae, "fit"):
            sae.fit(iter([self.x.clone()]), generator)

    def trained(self, seed: int = 0, steps: int = SETTLE_STEPS, observe: Observe = lambda *seen: None) -> Any:
        """A module after some steps of training, in its inference form."""
        sae = self.build(seed)
        if any(parameter.requires_grad for parameter in sae.parameters()):
            self.train(sae, steps, observe)
        sae.eval()
        if hasattr(sae, "finalize"):
            sae.finalize(iter([self.x.clone()]))  # batches can be read once, as in a run
        return sae.requires_grad_(False)

    def ready(self) -> Any:
        """A module in its inference form for rules about codes. Training that fails is another rule's matter."""
        with suppress(Exception), contained():
            return self.trained()
        return self.build().eval().requires_grad_(False)

    def train(self, sae: Any, steps: int, observe: Observe = lambda *seen: None) -> None:
        """Trains as a run does."""
        import torch

        from saebench.train.step import Trainer

        defaults, total = self.spec.train, steps * LEARN_BATCH
        settings = TrainSettings(
            LEARN_BATCH,
            LEARN_RATE,
            defaults.betas,
            defaults.eps,
            defaults.clip,
            defaults.warmup,
            defaults.decay,
            "none",
        )
        trainer = Trainer(sae.train(), settings, torch.Generator().manual_seed(1), self.spec.name)
        for index in range(steps):
            start, seen = index * LEARN_BATCH % len(self.x), index * LEARN_BATCH
            info = StepInfo(index, seen / total, seen, total)
            trainer.step(self.batch(slice(start, start + LEARN_BATCH)), info, observe)

    def twin(self, sae: Any) -> Any:
        """Another module of the same weights, which has never seen an activation."""
        other = self.build(1, prepared=False)
        other.load_state_dict(sae.state_dict(), strict=True)
        return other.eval().requires_grad_(False)

    def batch(self, rows: slice = slice(0, 64)) -> ActivationBatch:
        """Rows of `x` as a training batch."""
        x = self.x[rows].clone()
        return ActivationBatch(x, x)

    def codes(self, sae: Any, x: Tensor) -> SparseCodes:
        """The codes of `x`, checked as a run checks them."""
        return normalise_codes(sae.encode(x), sae.d_sae, n_rows=len(x), plugin=self.spec.name)

    def error(self, sae: Any) -> float:
        """Mean squared error of a token."""
        import torch

        with torch.no_grad():
            return float((sae.decode(self.codes(sae, self.x)) - self.x).square().sum(1).mean())
