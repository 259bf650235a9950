"""What a row shows of the agreement of its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench.leaderboard.read.records import Json


@dataclass(frozen=True)
class Chance:
    """A score by chance, with its 95 % interval over draws and what was sampled, where the record has them.

    `untrained`: the level of untrained samples of the training data, which is the larger of two; `other`: of random
    directions then.
    """

    value: float
    low: float | None = None
    high: float | None = None
    draws: int | None = None
    n: float | None = None
    m: float | None = None
    d: int | None = None
    untrained: bool = False
    other: float | None = None


@dataclass(frozen=True)
class Agreement:
    """A score of several SAEs, with the half-width of its jackknife interval; `n` pairs."""

    value: float | None
    half: float | None
    n: int | None
    reason: str | None


@dataclass(frozen=True)
class SeedScore(Agreement):
    """A score with the level of chance and the chance-corrected score, each None where the record lacks it."""

    null: Chance | None
    corrected: Agreement | None

    @property
    def own_chance(self) -> bool:
        """Chance is 0 by definition of the score: there is nothing to correct."""
        return self.corrected is None and self.null is not None and self.null.value == 0

    @property
    def within_chance(self) -> bool:
        """It does not exceed chance: not at all, or not by more than the 95 % interval of the corrected score."""
        over = self.corrected
        return over is not None and over.value is not None and over.value <= (over.half or 0.0)


@dataclass(frozen=True)
class Certificate:
    """How many matchings were proven optimal, and the largest relative gap; None where a pair has no bound."""

    proven: int
    pairs: int
    gap: float | None


@dataclass(frozen=True)
class ThresholdCurve:
    """Share of matched pairs over each cosine threshold: with jackknife half-widths, among alive latents, by chance."""

    thresholds: tuple[float, ...]
    sfr: tuple[float, ...]
    half: tuple[float | None, ...] | None
    sfr_alive: tuple[float, ...] | None
    sfr_null: tuple[float, ...] | None


@dataclass(frozen=True)
class Bin:
    """Latents in a bin of a logarithm: mean share of the other seeds that have them, with its jackknife half-width."""

    low: float
    high: float
    n: int
    mean: float
    half: float | None


@dataclass(frozen=True)
class Apart:
    """Latents that have no logarithm."""

    n: int
    mean: float | None


@dataclass(frozen=True)
class Bins:
    """Bins that hold latents; apart those that are `dead` or `not_positive`."""

    bins: tuple[Bin, ...]
    apart: Mapping[str, Apart]


@dataclass(frozen=True)
class Reappearance:
    """How often a latent is found again in another seed, by density and by share of variance; or reasons why not."""

    seeds: int
    share: Sequence[float]
    n: Sequence[int]
    density: Bins | None
    variance: Bins | None
    reasons: Mapping[str, str]

    def by(self, kind: str) -> Bins | None:
        """By `density` or by `variance`."""
        return self.density if kind == "density" else self.variance


@dataclass(frozen=True)
class Recapture:
    """Distinct latents that k seeds together find, and the extrapolated total with its 95 % interval."""

    k: tuple[int, ...]
    distinct: tuple[float, ...]
    estimate: float | None
    coverage: float | None
    low: float | None
    high: float | None
    method: str | None
    assumptions: str | None
    n_alive: Sequence[float] | None
    singletons: float | None
    doubletons: float | None
    stderr: float | None
    reason: str | None


@dataclass(frozen=True)
class SeedAgreement:
    """What a row shows of its seeds' agreement; what its record lacks is None.

    `reason` says why there are no scores.
    """

    reason: str | None
    scores: Mapping[str, SeedScore]
    seeds: int = 0
    pairs: int = 0
    matching: Certificate | None = None
    curve: ThresholdCurve | None = None
    reappearance: Reappearance | None = None
    recapture: Recapture | None = None
    activation: Json | None = None
    pair_scores: Sequence[Json] = ()
    path: str | None = None
