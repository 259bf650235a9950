"""What an SAE costs to train, to keep and to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saebench.api.values import MetricResult
from saebench.metrics.accumulator import metric_value
from saebench.metrics.catalogue import COST

if TYPE_CHECKING:
    from saebench.api.batches import ScoredBatch
    from saebench.api.metrics import MetricContext, ScoringFacts, Stream, TrainingFacts
    from saebench.api.values import MetricValue


def stored_bytes(sae: Any) -> int:
    """The SAE's own `stored_bytes()`, else the bytes of its state dict."""
    if callable(getattr(sae, "stored_bytes", None)):
        return int(sae.stored_bytes())
    return sum(tensor.numel() * tensor.element_size() for tensor in sae.state_dict().values())


def learned_values(sae: Any) -> int:
    """The SAE's own `learned_values()`, else the number of its parameters' entries."""
    if callable(getattr(sae, "learned_values", None)):
        return int(sae.learned_values())
    return sum(parameter.numel() for parameter in sae.parameters())


class CostAccumulator:
    """A `CellMetric` that reads no stream: its facts are in the context once scoring is done."""

    def __init__(self, context: MetricContext) -> None:
        self._context = context

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Nothing to take."""

    def compute(self) -> MetricResult:
        """Every id."""
        return MetricResult(cost_values(self._context.sae, self._context.training, self._context.scoring))


def cost_values(sae: Any, training: TrainingFacts, scoring: ScoringFacts) -> dict[str, MetricValue]:
    """Every cost metric by id; the measured ones are null where nothing was measured."""
    n = training.tokens
    unmeasured = "not measured: nothing was trained" if n == 0 else "not measured on this device"
    rate = scoring.encoded_tokens / scoring.encode_s if scoring.encode_s > 0 else None
    values = {
        "train-tokens": metric_value("train-tokens", training.tokens, n),
        "train-flops": metric_value("train-flops", training.flops, n),
        "train-device-s": metric_value(
            "train-device-s", training.device_s, n, reason=unmeasured if training.device_s is None else None
        ),
        "peak-memory-bytes": metric_value(
            "peak-memory-bytes",
            training.peak_memory_bytes,
            n,
            reason=unmeasured if training.peak_memory_bytes is None else None,
        ),
        "data-cost-tokens": metric_value("data-cost-tokens", training.data_tokens, n),
        "stored-bytes": metric_value("stored-bytes", stored_bytes(sae), n),
        "learned-values": metric_value("learned-values", learned_values(sae), n),
        "encode-tokens-per-s": metric_value(
            "encode-tokens-per-s", rate, scoring.encoded_tokens, reason="nothing was encoded" if rate is None else None
        ),
    }
    return {info.id: values[info.id] for info in COST}
