"""What a metric is shown in a check: an example SAE on example activations, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from saebench.api import (
    ActivationBatch,
    GroupMember,
    GroupMetricSpec,
    LossTerms,
    MetricContext,
    MetricResult,
    MetricSpec,
    ScoredBatch,
    ScoringFacts,
    SparseCodes,
    SplicedLosses,
    StepInfo,
    TrainingFacts,
)
from saebench.api.specs import resolve
from saebench.testing.architecture.case import example_activations

D_IN, D_SAE, K, TOKENS, SEQUENCE = 16, 32, 4, 640, 20


class _SAE(nn.Module):
    """A TopK SAE that was never trained."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.d_in, self.d_sae = D_IN, D_SAE
        rows = normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(seed)), dim=1)
        self.W_enc, self.W_dec = nn.Parameter(rows.clone()), nn.Parameter(rows)
        self.requires_grad_(False)

    def encode(self, x: Tensor) -> SparseCodes:
        """The four largest latents."""
        found = (x @ self.W_enc.T).relu().topk(K, dim=1)
        return SparseCodes.from_topk(found.values, found.indices, D_SAE)

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        return codes.to_dense() @ self.W_dec

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """Never called."""
        raise NotImplementedError


class Scores:
    """Tokens with codes, reconstructions and losses; or members of a group.

    Args:
        spec: The metric.
        quality: `honest`, `perfect` (x_hat is x), `noise` (x_hat is another row), `dead` (no latent fires).
        n_tokens: Of each stream.
        streams: Whether the metric's streams exist.
    """

    def __init__(
        self, spec: MetricSpec, *, quality: str = "honest", n_tokens: int = TOKENS, streams: bool = True
    ) -> None:
        self.spec, self.streams, self.sae = spec, streams, _SAE(0)
        self.x = example_activations(max(2, n_tokens), D_IN)[:n_tokens]
        codes = self.sae.encode(self.x)
        self.dead = quality == "dead"
        self.codes = replace(codes, values=torch.zeros_like(codes.values)).nonzero() if self.dead else codes
        self.x_hat = {"perfect": self.x.clone(), "noise": -3 * self.x.roll(1, 0)}.get(
            quality, self.sae.decode(self.codes)
        )
        rounded = replace(self.codes, values=self.codes.values.bfloat16().float())
        self.x_hat_16bit = self.x_hat if quality in ("perfect", "noise") else self.sae.decode(rounded)
        generator = torch.Generator().manual_seed(2)
        clean = 2 + torch.rand(n_tokens, generator=generator)
        harm = {"perfect": 0.0, "noise": 3.0}.get(quality, 0.5)
        self.losses = SplicedLosses(
            clean, clean + harm, clean + 2, clean + 1.5, torch.full_like(clean, harm), torch.full_like(clean, 2)
        )

    def result(self, size: int = 64, order: int = 1) -> MetricResult:
        """The metric in batches of `size`; `order` -1: the last one first."""
        if isinstance(self.spec, GroupMetricSpec):
            group: MetricResult = resolve(self.spec.make)().measure(list(self._members())[::order])
            return group
        streams = frozenset(self.spec.streams if self.streams else ())
        absent = {name: "it is not there" for name in self.spec.streams if not self.streams}
        dictionary = normalize(torch.randn(24, D_IN, generator=torch.Generator().manual_seed(5)), dim=1)
        context = MetricContext(
            self.sae,
            D_IN,
            D_SAE,
            frozenset(),
            streams,
            absent,
            TrainingFacts(10_000, 10**9, 0, 1.0, 10**6),
            ScoringFacts(TOKENS, 0.1),
            dictionary if "truth" in self.spec.fields and self.streams else None,
        )
        metric = resolve(self.spec.make)(context)
        for stream in sorted(streams):
            for start in list(range(0, len(self.x), size))[::order]:
                metric.update(stream, self._batch(start, min(start + size, len(self.x)), stream))
        computed: MetricResult = metric.compute()
        return computed

    def fingerprint(self) -> tuple[bytes, ...]:
        """Of all that a metric is shown."""
        shown = (self.x, self.x_hat, self.codes.values, self.codes.latents, *vars(self.losses).values(), self.sae.W_dec)
        return tuple(tensor.detach().numpy().tobytes() for tensor in shown)

    def _batch(self, start: int, stop: int, stream: str) -> ScoredBatch:
        rows, fields = slice(start, stop), self.spec.fields if not isinstance(self.spec, GroupMetricSpec) else ()
        places = torch.arange(start, stop)
        batch = ActivationBatch(
            self.x[rows],
            self.x[rows],
            token_ids=places % 50,
            positions=places % SEQUENCE,
            sequence_ids=places // SEQUENCE,
            truth=self._truth().slice(start, stop) if "truth" in fields else None,
            document_ids=places // (2 * SEQUENCE),
        )
        losses = SplicedLosses(*(value[rows] for value in vars(self.losses).values())) if "losses" in fields else None
        codes = self.codes.slice(start, stop) if "codes" in fields else None
        x_hat = self.x_hat[rows] if "reconstruction" in fields else None
        rounded = self.x_hat_16bit[rows] if "reconstruction-16bit" in fields else None
        return ScoredBatch(batch, codes, x_hat, losses, x_hat_16bit=rounded)

    def _truth(self) -> SparseCodes:
        generator = torch.Generator().manual_seed(6)
        return SparseCodes.from_dense((torch.rand(len(self.x), 24, generator=generator) < 0.1).float())

    def _members(self) -> Iterator[GroupMember]:
        for seed in range(3):
            sae = _SAE(seed)

            def codes(sae: _SAE = sae) -> Iterator[SparseCodes]:
                yield from (sae.encode(piece) for piece in torch.split(self.x, 64))

            silent = torch.full((D_SAE,), True) if self.dead else torch.arange(D_SAE) == seed
            facts = {
                "entry": "example", "point": "k4", "dataset": "example", "hookpoint": "example", "init_seed": seed,
                "data_seed": 0, "cell_id": f"cell{seed}", "score_id": f"score{seed}",
            }  # fmt: skip
            arrays = {"density": torch.full((D_SAE,), K / D_SAE), "variance-share": torch.full((D_SAE,), 1 / D_SAE)}
            yield GroupMember(f"s{seed}", sae, dead=silent, facts=facts, arrays=arrays, codes=codes)
