"""What a metric returns: a number with its unit, direction, count and uncertainty, or null with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 1e60
"""Of a value: squares of squares of it are still floats, so that no statistic over seeds overflows."""

Direction = Literal["lower", "higher", "neutral"]
Scale = Literal["identity", "log", "logit", "log-complement"]
Unit = Literal[
    "fraction",
    "ratio",
    "nats",
    "latents",
    "tokens",
    "flops",
    "seconds",
    "bytes",
    "values",
    "bits",
    "tokens/s",
    "activation",
    "squared activation",
]


@dataclass(frozen=True)
class Column:
    """How tables and charts print a metric. A metric without a column is in the details of a row only.

    Attributes:
        name: Heading in the main table, such as `L0`.
        family: Heading above it; empty: the metric's family.
        alone: Heading where no family is printed above it; empty: `name`.
        hint: One line that is shown on hover; empty: the metric's description.
        decimals: Digits after the point.
        percent: A fraction that is printed as a percentage.
        main: Whether it is in the main table.
        place: Position among the columns of its family, lowest first.
        terminal: Heading in the table of 80 columns that a run prints; empty: it is not in there.
        chart: `l0`: a chart of its own, against L0. `dots`: a mark in the chart of its family, a row a contender.
        replaces: Metric ids whose columns are left out of tables in which every row has this metric.
    """

    name: str
    family: str = ""
    alone: str = ""
    hint: str = ""
    decimals: int = 3
    percent: bool = False
    main: bool = True
    place: int = 100
    terminal: str = ""
    chart: Literal["none", "l0", "dots"] = "none"
    replaces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not 0 <= self.decimals <= 12:
            raise ValueError(f"a Column has a name and 0 to 12 decimals, got {self.name!r} and {self.decimals}")


@dataclass(frozen=True)
class MetricInfo:
    """One metric id: what a reader needs to know before reading its number.

    Attributes:
        id: Lower-kebab id, such as `fvu`.
        unit: Unit of the value.
        direction: `lower` or `higher` is better; `neutral` where neither is.
        family: Heading above it (reconstruction, sparsity, density, faithfulness, stability, truth, cost).
        description: One line, with the formula as text.
        measured: True for times and memory, which differ between equal runs and are kept in `measured.metrics`.
        column: How tables print it; None: it is in the details of a row only.
        ranks: Whether contenders are ranked by it at matched sparsity.
        scale: On which seeds spread alike: `log` (errors, losses), `logit` (fractions), `log-complement` (1 less
            something positive: variance explained, recovered losses), `identity`. Contenders are compared on it.

    Raises:
        ValueError: It ranks, and has no column or no direction.
    """

    id: str
    unit: Unit
    direction: Direction
    family: str
    description: str
    measured: bool = False
    column: Column | None = None
    ranks: bool = False
    scale: Scale = "identity"

    def __post_init__(self) -> None:
        if self.ranks and (self.column is None or self.direction == "neutral"):
            raise ValueError(f"metric {self.id}: a metric that ranks has a column, and is better lower or higher")


@dataclass(frozen=True)
class MetricValue:
    """A finite value, or None with a reason; never NaN.

    Attributes:
        value: The number, or None.
        unit: Unit of `value` and `stderr`.
        direction: Which way is better.
        n: How many tokens (or latents, pairs) it was computed from.
        stderr: Standard error, clustered by document (or sequence) where there are any; None where it is not defined.
        reason: Why `value` is None. Required then, and only then.
    """

    value: float | None
    unit: Unit
    direction: Direction
    n: int
    stderr: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.value is None:
            if not self.reason:
                raise ValueError("a MetricValue without a value needs a reason")
            if self.stderr is not None:
                raise ValueError("a MetricValue without a value has no standard error")
        elif not abs(self.value) <= LARGEST:
            raise ValueError(
                f"a MetricValue must be finite and at most {LARGEST:g}, got {self.value}; use value=None with a reason"
            )
        elif self.reason is not None:
            raise ValueError(f"a MetricValue with a value has no reason, got {self.reason!r}")
        if self.stderr is not None and not 0 <= self.stderr <= LARGEST:
            raise ValueError(f"a standard error must be finite and not negative, got {self.stderr}")
        if self.n < 0:
            raise ValueError(f"a MetricValue is computed from 0 or more, got n={self.n}")

    @classmethod
    def of(
        cls, info: MetricInfo, value: float | None, n: int, *, stderr: float | None = None, reason: str | None = None
    ) -> MetricValue:
        """Value under `info`'s unit and direction; a value that is not finite becomes null with a reason."""
        if value is not None and not abs(value) <= LARGEST:
            value, stderr, reason = None, None, reason or f"the computation gave {value}"
        if value is None:
            return cls(None, info.unit, info.direction, n, None, reason or "not defined here")
        if stderr is not None and not 0 <= stderr <= LARGEST:
            stderr = None
        return cls(float(value), info.unit, info.direction, n, stderr, None)

    def to_json(self) -> dict[str, Any]:
        """Plain mapping with all six keys."""
        return {
            "value": self.value,
            "unit": self.unit,
            "direction": self.direction,
            "n": self.n,
            "stderr": self.stderr,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class MetricResult:
    """Everything one metric spec gives for one pass.

    Attributes:
        values: `MetricValue` by metric id; every id the spec provides, null ones included.
        details: JSON-ready extras a page draws (histograms in fixed bins, threshold sweeps), by name.
        arrays: Per-latent arrays `[d_sae]`, kept beside the record, by name.
    """

    values: Mapping[str, MetricValue]
    details: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
