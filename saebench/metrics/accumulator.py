"""What accumulators share: values and nulls under the ids, the accumulator of one stream. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from saebench.api.values import MetricInfo, MetricResult, MetricValue
from saebench.metrics.catalogue import INFO

if TYPE_CHECKING:
    from saebench.api.batches import ScoredBatch
    from saebench.api.metrics import MetricContext, Stream

NO_TOKENS = "no tokens were seen"


def metric_value(
    id: str, value: float | None, n: int, *, stderr: float | None = None, reason: str | None = None
) -> MetricValue:
    """`MetricValue` of a core metric, under its unit and direction."""
    return MetricValue.of(INFO[id], value, n, stderr=stderr, reason=reason)


def nulls(metrics: Iterable[MetricInfo], reason: str, n: int = 0) -> dict[str, MetricValue]:
    """Null for every id, with one reason."""
    return {info.id: MetricValue.of(info, None, n, reason=reason) for info in metrics}


def absence(context: MetricContext, stream: Stream) -> str | None:
    """Why `stream` does not exist for this SAE; None where it does."""
    if stream in context.streams:
        return None
    return context.absent.get(stream, f"there is no stream {stream} here")


class StreamAccumulator:
    """A `CellMetric` of one stream. Subclasses say what they take of a batch, and which values follow.

    Attributes:
        stream: What it reads.
        metrics: The ids that it gives.
        absent: Why the stream does not exist for this SAE: every id is null for that reason. None where it exists.
    """

    stream: ClassVar[Stream] = "eval"
    metrics: ClassVar[tuple[MetricInfo, ...]]

    def __init__(self, absent: str | None = None) -> None:
        self.absent = absent

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch; those of other streams are passed over."""
        if stream == self.stream:
            self.take(scored)

    def compute(self) -> MetricResult:
        """Every id."""
        return MetricResult(nulls(self.metrics, self.absent) if self.absent else self.values())

    def take(self, scored: ScoredBatch) -> None:
        """Add one batch of the stream."""
        raise NotImplementedError

    def values(self) -> dict[str, MetricValue]:
        """Every id, from what was added so far."""
        raise NotImplementedError
