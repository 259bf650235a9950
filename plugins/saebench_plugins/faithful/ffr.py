"""FFR, the fake feature ratio. OUR RECONSTRUCTION.

The FaithfulSAE paper (Cho et al. 2025, arXiv 2506.17673) names it and says that lower is better; neither its definition
nor code that computes it could be found. From what is known (it is about latents that fire very often, on text that the
model never learnt) we take, for a stream S of tokens and a threshold tau:

    rho_j(S) = fraction of the tokens of S on which f_j != 0
    FFR(S, tau) = #{j : rho_j(S) > tau} / d_sae
    FFR-alive(S, tau) = #{j alive : rho_j(S) > tau} / #{j alive},   alive: rho_j(held-out text) > 0

with tau = 0.10, and S uniform random token ids (`ffr-random`), held-out text (`ffr-text`), the model's own samples
(`ffr-self`). Detail `ffr-sweep` has it for other tau. Do not compare with numbers of the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api import CellMetric, MetricContext, MetricInfo, MetricResult, MetricValue
from saebench.metrics.accumulator import NO_TOKENS, absence
from saebench.metrics.density import DensityAccumulator
from saebench_plugins.faithful.ffr_spec import FFR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saebench.api import ScoredBatch, Stream

THRESHOLD = 0.10
SWEEP = (0.01, 0.05, 0.1, 0.2)
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
        text = self._counts["density"]
        alive = text.density() > 0 if text.n_tokens and not self._absent["text"] else None
        infos = {info.id: info for info in FFR}
        values: dict[str, MetricValue] = {}
        sweep: dict[str, Any] = {}
        for kind, stream in STREAMS.items():
            counts = self._counts[stream]
            plain, among_alive = infos[f"ffr-{kind}"], infos[f"ffr-{kind}-alive"]
            reason = self._absent[kind] or (None if counts.n_tokens else NO_TOKENS)
            if reason:
                values |= {info.id: MetricValue.of(info, None, 0, reason=reason) for info in (plain, among_alive)}
                continue
            values[plain.id] = self._ratio(plain, counts, None)
            sweep[kind] = {f"{tau:g}": float((counts.density() > tau).mean()) for tau in SWEEP}
            if alive is None or not alive.any():
                why = (
                    "which latents are alive is not known: " + (self._absent["text"] or NO_TOKENS)
                    if alive is None
                    else "no latent fires on held-out text"
                )
                values[among_alive.id] = MetricValue.of(among_alive, None, counts.n_tokens, reason=why)
            else:
                values[among_alive.id] = self._ratio(among_alive, counts, alive)
                sweep[f"{kind}-alive"] = {f"{tau:g}": float((counts.density()[alive] > tau).mean()) for tau in SWEEP}
        return MetricResult(values, {"thresholds": {"ffr": THRESHOLD}, **({"ffr-sweep": sweep} if sweep else {})})

    @staticmethod
    def _ratio(info: MetricInfo, counts: DensityAccumulator, alive: NDArray[np.bool_] | None) -> MetricValue:
        kept = slice(None) if alive is None else alive
        value, error = counts.statistic(lambda density: density[kept] > THRESHOLD)
        return MetricValue.of(info, value, counts.n_tokens, stderr=error)


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return FakeFeatureRatio(context)
