"""What a page shows of a row beyond numbers: density histogram and strongest contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from saebench.api.errors import describe
from saebench.leaderboard.read.records import CellRecord, Json
from saebench.leaderboard.read.survive import Unreadable
from saebench.leaderboard.tables.statistics import mean

LATENTS_SHOWN = 4
CONTEXTS_SHOWN = 3
TOKENS_AROUND_PEAK = 16
_MAX_LOG10 = 300

_From = TypeVar("_From")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Density:
    """Share of latents in bins of log10 density, and the share that never fired."""

    edges_log10: tuple[float, ...]
    shares: tuple[float, ...]
    zero: float


@dataclass(frozen=True)
class Context:
    """Tokens around the strongest activation of a latent in one text; `cut`: more tokens come before."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: float
    cut: bool


@dataclass(frozen=True)
class LatentContexts:
    """The strongest contexts of one latent."""

    latent: int
    density: float | None
    contexts: tuple[Context, ...]


def readable(make: Callable[[_From], _T], source: _From, path: str) -> _T:
    """`make(source)`: of details of a record, which have no fixed schema.

    A shape that cannot be read is a damaged record, and is named as such.

    Raises:
        Unreadable: Of this path.
    """
    try:
        return make(source)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Unreadable(
            path, f"damaged record: cannot read its {make.__name__.replace('_', ' ')} ({describe(error)})"
        ) from error


def _details(cells: Sequence[CellRecord], name: str) -> list[Any]:
    return [cell.facts["details"][name] for cell in cells if (cell.facts.get("details") or {}).get(name)]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def log_edges(values: Sequence[Any]) -> list[float]:
    """Rising logarithms whose powers of ten are floats: `10**edge` of a giant integer would never end."""
    edges = [float(_number(value)) for value in values]
    if any(not low < high for low, high in pairwise(edges)) or any(abs(edge) > _MAX_LOG10 for edge in edges):
        raise ValueError("edges of a histogram rise, and are logarithms")
    return edges


def density(cells: Sequence[CellRecord]) -> Density | None:
    """The histogram of densities, mean over seeds."""
    histograms = _details(cells, "density-histogram")
    histograms = [item for item in histograms if item["edges_log10"] == histograms[0]["edges_log10"]]
    if not histograms:
        return None
    if any(len(item["counts"]) + 1 != len(item["edges_log10"]) for item in histograms):
        raise ValueError("a histogram has one edge more than counts")
    if any(min(item["counts"], default=0) < 0 or item["zero"] < 0 for item in histograms):
        raise ValueError("a histogram has no negative counts")
    totals = [sum(item["counts"]) + item["zero"] for item in histograms]
    shares = [
        [number / total for number in item["counts"]] for item, total in zip(histograms, totals, strict=True) if total
    ]
    if not shares:
        return None
    zero = [item["zero"] / total for item, total in zip(histograms, totals, strict=True) if total]
    edges = tuple(log_edges(histograms[0]["edges_log10"]))
    return Density(edges, tuple(mean(column) for column in zip(*shares, strict=True)), mean(zero))


def contexts(cells: Sequence[CellRecord]) -> tuple[LatentContexts, ...]:
    """The strongest contexts of a few latents of the first seed, at evenly spaced ranks of density.

    They are cut to the tokens around the peak.
    """
    latents = (cells[0].facts.get("details") or {}).get("strongest-contexts") or []
    n = min(LATENTS_SHOWN, len(latents))
    shown = []
    for latent in [latents[(2 * index + 1) * len(latents) // (2 * n)] for index in range(n)]:
        contexts = [_context(context) for context in (latent.get("contexts") or [])[:CONTEXTS_SHOWN]]
        if kept := tuple(context for context in contexts if context is not None):
            density = latent.get("density")
            shown.append(LatentContexts(int(latent["latent"]), None if density is None else _number(density), kept))
    return tuple(shown)


def _context(context: Json) -> Context | None:
    tokens = tuple(str(token) for token in context["text_tokens"])
    activations = tuple(_number(value) for value in context["activations"])
    if not tokens or len(tokens) != len(activations):
        return None
    peak = max(range(len(activations)), key=lambda index: abs(activations[index]))
    start, end = max(0, peak - TOKENS_AROUND_PEAK), peak + TOKENS_AROUND_PEAK // 2
    return Context(tokens[start:end], activations[start:end], activations[peak], start > 0)
