"""FFR, the fake feature ratio. OUR RECONSTRUCTION.

The FaithfulSAE paper (Cho et al. 2025, arXiv 2506.17673) names it and says that lower is better; neither its definition
nor code that computes it could be found. From what is known (it is about latents that fire very often, on text that the
model never learnt) we take, for a stream S of tokens and a threshold tau:

    rho_j(S) = fraction of the tokens of S on which f_j != 0
    FFR(S, tau) = #{j : rho_j(S) > tau} / d_sae
    FFR-alive(S, tau) = #{j alive : rho_j(S) > tau} / #{j alive},   alive: rho_j(held-out text) > 0

with tau = 0.10, and S uniform random token ids (`ffr-random`), held-out text (`ffr-text`), the model's own samples
(`ffr-self`). `ffr-contrast` = #{j : rho_j(random) > tau >= rho_j(self)} / d_sae leaves out latents that are dense
wherever the model is at home. Detail `ffr-sweep` has all for other tau. Do not compare with numbers of the paper.

Densities sum to L0, so FFR(S, tau) < L0(S) / (tau d_sae): a sparser or wider SAE has a lower FFR whatever its latents
mean. Compare FFR only at equal L0 on the stream and equal d_sae; `-of-ceiling` is the share of that bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api import CellMetric, MetricContext, MetricResult, MetricValue
from saebench.metrics.accumulator import NO_TOKENS, absence
from saebench.metrics.density import DensityAccumulator
from saebench_plugins.faithful.ffr_spec import FFR, THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from saebench.api import ScoredBatch, Stream

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

SWEEP = (0.01, 0.05, 0.1, 0.2)
INFO = {info.id: info for info in FFR}
STREAMS: dict[str, Stream] = {"random": "random-tokens", "text": "density", "self": "self-sampled"}


class FakeFeatureRatio:
    """Counts firings on each stream. Standard errors: half-samples of the stream's documents or sequences, alive
    latents held fixed."""

    def __init__(self, context: MetricContext) -> None:
        self._absent = {kind: absence(context, stream) for kind, stream in STREAMS.items()}
        self._counts = {stream: DensityAccumulator(context.d_sae) for stream in STREAMS.values()}

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of one of the three streams."""
        if stream in self._counts and scored.codes is not None:
            self._counts[stream].add(scored.codes, scored.batch.clusters)

    def compute(self) -> MetricResult:
        """All ids, and the sweep `{kind: {tau: fraction}}`."""
        absent = {kind: self._absent[kind] or (None if self._on(kind).n_tokens else NO_TOKENS) for kind in STREAMS}
        no_alive, alive = f"which latents are alive is not known: {absent['text']}", None
        if not absent["text"]:
            no_alive, alive = "no latent fires on held-out text", self._on("text").density() > 0
            alive = alive if alive.any() else None
        values: dict[str, MetricValue] = {}
        sweep: dict[str, Any] = {}
        for kind in STREAMS:
            name, reason = f"ffr-{kind}", absent[kind]
            if reason is None:
                values[f"{name}-l0"], values[f"{name}-of-ceiling"] = self._ceiling(kind)
            else:
                values |= {id: _null(id, reason) for id in (f"{name}-l0", f"{name}-of-ceiling")}
            self._both(name, (kind,), reason, alive, no_alive, values, sweep)
        self._both(
            "ffr-contrast", ("random", "self"), absent["random"] or absent["self"], alive, no_alive, values, sweep
        )
        details = {"thresholds": {"ffr": THRESHOLD}, **({"ffr-sweep": sweep} if sweep else {})}
        return MetricResult({id: values[id] for id in INFO}, details)

    def _both(
        self,
        name: str,
        kinds: tuple[str, ...],
        reason: str | None,
        alive: Bools | None,
        no_alive: str,
        values: dict[str, MetricValue],
        sweep: dict[str, Any],
    ) -> None:
        """A ratio over all latents and over those alive: dense on the first stream, and on none of the others."""
        for id, kept in ((name, slice(None)), (f"{name}-alive", alive)):
            if reason is not None or kept is None:
                values[id] = _null(id, reason or no_alive)
                continue
            counts = [self._on(kind) for kind in kinds]
            densities = [one.density()[kept] for one in counts]
            n, error = min(one.n_tokens for one in counts), _error(counts, densities, kept)
            values[id] = MetricValue.of(INFO[id], float(_fakes(densities, THRESHOLD).mean()), n, stderr=error)
            sweep[id.removeprefix("ffr-")] = {f"{tau:g}": float(_fakes(densities, tau).mean()) for tau in SWEEP}

    def _ceiling(self, kind: str) -> tuple[MetricValue, MetricValue]:
        """L0 on a stream, and the share of what FFR can be there at most."""
        counts = self._on(kind)

        def share(density: Floats) -> float | None:
            ceiling = min(1.0, float(density.sum()) / (THRESHOLD * len(density)))
            return float((density > THRESHOLD).mean()) / ceiling if ceiling else None

        (l0, l0_error), (part, part_error) = (
            counts.statistic(function) for function in (lambda density: float(density.sum()), share)
        )
        found = MetricValue.of(INFO[f"ffr-{kind}-l0"], l0, counts.n_tokens, stderr=l0_error)
        of_ceiling = INFO[f"ffr-{kind}-of-ceiling"]
        if part is None:
            return found, _null(of_ceiling.id, "no latent ever fires")
        return found, MetricValue.of(of_ceiling, part, counts.n_tokens, stderr=part_error)

    def _on(self, kind: str) -> DensityAccumulator:
        return self._counts[STREAMS[kind]]


def _fakes(densities: Sequence[Floats], threshold: float) -> Bools:
    """Which latents are over the threshold on the first stream and on none of the others."""
    first, *others = (density > threshold for density in densities)
    return first & ~np.any(others, axis=0) if others else first


def _error(counts: Sequence[DensityAccumulator], densities: Sequence[Floats], kept: Any) -> float | None:
    """Standard error: streams are independent, so each is varied with the others held, and the variances are added."""
    errors = []
    for at, one in enumerate(counts):

        def varied(density: Floats, at: int = at) -> Bools:
            return _fakes([*densities[:at], density[kept], *densities[at + 1 :]], THRESHOLD)

        errors.append(one.statistic(varied)[1])
    known = [error for error in errors if error is not None]
    return math.hypot(*known) if len(known) == len(errors) else None


def _null(id: str, reason: str) -> MetricValue:
    return MetricValue.of(INFO[id], None, 0, reason=reason)


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return FakeFeatureRatio(context)
