"""What the accumulators of one stream share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from saebench.api.values import MetricResult
from saebench.metrics.catalogue import nulls

if TYPE_CHECKING:
    from saebench.api.batches import ScoredBatch
    from saebench.api.metrics import Stream
    from saebench.api.values import MetricInfo, MetricValue


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
