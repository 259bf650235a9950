"""What a metric plugin sees while it measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.api.batches import ScoredBatch
    from saebench.api.codes import SparseCodes
    from saebench.api.sae import SparseAutoencoder
    from saebench.api.values import MetricResult

Stream = str
"""Name of a stream of held-out data: one of `STREAMS`, or one that a metric adds (`StreamSpec`)."""
STREAMS: tuple[Stream, ...] = ("eval", "density", "random-tokens", "self-sampled", "loss")
"""`eval`: held-out tokens (`evaluation.tokens`) · `density`: held-out tokens (`density_tokens`) · `loss`: held-out
tokens (`loss_tokens`) with spliced losses · `random-tokens`: activations on uniform random token ids · `self-sampled`:
activations on the model's own samples (both `density_tokens`)."""
Field = Literal["codes", "reconstruction", "reconstruction-16bit", "losses", "truth"]


@dataclass(frozen=True)
class TrainingFacts:
    """What training cost, for the cost metrics. Measured ones are None where they were not measured."""

    tokens: int
    flops: int
    data_tokens: int
    device_s: float | None = None
    peak_memory_bytes: int | None = None


@dataclass
class ScoringFacts:
    """Filled while scoring runs; complete when `compute` is called."""

    encoded_tokens: int = 0
    encode_s: float = 0.0


@dataclass(frozen=True)
class MetricContext:
    """Given to `CellMetricSpec.make`.

    Attributes:
        sae: The SAE in inference form, reloaded from disk.
        d_in, d_sae: Sizes.
        tags: The architecture's tags; a metric looks at these, never at names.
        streams: Which streams exist here; a metric whose stream is absent gives null with `absent[stream]` as reason.
        absent: Reason for each stream that does not exist.
        dictionary: `[n_features, d_in]` true features, or None.
        training, scoring: Costs.
    """

    sae: SparseAutoencoder
    d_in: int
    d_sae: int
    tags: frozenset[str]
    streams: frozenset[Stream]
    absent: Mapping[str, str]
    training: TrainingFacts
    scoring: ScoringFacts
    dictionary: Tensor | None = None


class CellMetric(Protocol):
    """A streaming metric of one SAE."""

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of one of the needed streams."""
        ...

    def compute(self) -> MetricResult:
        """All values this spec provides."""
        ...


@dataclass(frozen=True)
class GroupMember:
    """One SAE of a group, in inference form.

    Attributes:
        label: What differs, for messages and names of arrays: `s0`; in a group that varies more than the seed also
            `docs s0`.
        sae: The SAE.
        tags: The architecture's tags; a metric looks at these, never at names.
        dead: `[d_sae]` bool, latents silent on the density stream of the first evaluation dataset; None if unknown.
        facts: `entry`, `point`, `dataset`, `hookpoint`, `init_seed`, `data_seed`, `cell_id`, `score_id` of its cell.
        arrays: `[d_sae]` arrays of its cell where they are known: `density` (share of tokens on which a latent fires),
            `variance-share` (share of the explained variance that goes when a latent is silenced).
        codes: Where the spec asks for `streams`: codes on the held-out stream of the group, batch by batch. The tokens
            and their order are the same for every member, and each call starts anew. None otherwise.
        training: `training(n)` gives `[min(n, there), d_out]` float32 on the CPU: what it learnt to write, of random
            training tokens. None where its training data is not at hand.
    """

    label: str
    sae: SparseAutoencoder
    tags: frozenset[str] = frozenset()
    dead: Tensor | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    codes: Callable[[], Iterator[SparseCodes]] | None = None
    training: Callable[[int], Tensor] | None = None


class GroupMetric(Protocol):
    """A metric over several SAEs that differ in the aspects its spec names."""

    def measure(self, members: Sequence[GroupMember]) -> MetricResult:
        """All values this spec provides; at least two members.

        Arrays of the result are kept beside the record of the group; one for each member is named `<name>/<member
        label>`.
        """
        ...
