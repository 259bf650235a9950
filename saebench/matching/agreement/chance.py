"""What matching gives by chance: the scores of random dictionaries of the same sizes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench import console
from saebench.api.errors import Damaged, SaebenchError
from saebench.artifacts import cache_folder, digest, read_sealed, sealed, write_json
from saebench.base.student import t_quantile
from saebench.matching.agreement.cosines import BINS, THRESHOLD, compare, curve, n_shared, n_strict
from saebench.matching.assignment import match

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Rows = Callable[[np.random.Generator], tuple[NDArray[np.float32], NDArray[np.float32]]]

_SEAL = "null_sha256"
_VERSION = 3  # goes up whenever a level can change: kept levels of another version are not read
_SHARES = ("sfr", "strict-shared")
_MEMORY: dict[str, Null] = {}


@dataclass(frozen=True)
class NullLevel:
    """The mean over draws, the 95 % t-interval of that mean (one draw strays further), and the spread of draws (`sd`).

    A share that is 0 in every draw has the upper end that N misses in a row leave at 95 %, 1 - 0.05^(1/N) (the rule of
    three), N the number of pairs in all draws, taken as independent. Where the level is known in closed form `draws` is
    0 and the interval is the range of 95 % of single draws.
    """

    value: float
    low: float
    high: float
    draws: int
    sd: float

    def to_json(self) -> dict[str, float | int]:
        """Plain mapping."""
        return {"value": self.value, "low": self.low, "high": self.high, "draws": self.draws, "sd": self.sd}


@dataclass(frozen=True)
class Null:
    """What dictionaries of `n` and `m` latents in `d` dimensions score that learnt nothing from each other.

    Attributes:
        levels: `sfr`, `strict-shared`, `matched-cosine`, `mmcs`. `sfr-alive` has the level of `sfr` at the alive sizes.
        curve: Mean share of matched pairs over each threshold of `cosines.CURVE`.
        histogram: Mean share of matched pairs in each bin between the edges `cosines.BINS`.
        proven: False where a solver's limit stopped a matching: the levels are then too low.
    """

    n: int
    m: int
    d: int
    levels: Mapping[str, NullLevel]
    curve: tuple[float, ...]
    histogram: tuple[float, ...]
    proven: bool = True


def null_scores(
    n: int,
    m: int,
    d: int,
    *,
    signed: bool = True,
    tied: bool = True,
    threshold: float = THRESHOLD,
    supports: tuple[Bools, Bools] | None = None,
    **solver: Any,
) -> Null:
    """Scores of dictionaries whose rows are independent standard Gaussians, so directions uniform on the sphere.

    10 draws up to 2,048 latents a side, 5 up to 4,096, 3 above, from generators that the sizes and the draw's number
    decide. The level of n against m is that of m against n. Kept in memory and, where it can be written, under
    `saebench/null` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`); rounded to 10 decimals so that a kept
    level is the one this machine would find.

    Real dictionaries are not isotropic: their rows crowd where activations vary, so untrained samples of the data agree
    far more than these (`data_chance`).

    Args:
        n, m: Latents a side.
        d: Width.
        signed: See `matching.match`.
        tied: The encoder reads what the decoder writes; otherwise `strict-shared` draws encoders of their own.
        threshold: Of `sfr` and `strict-shared`.
        supports: `[n, d]` and `[m, d]` bool: random rows are zero elsewhere. For dictionaries with a frozen support,
            which they share before anything is learned.
        solver: Further arguments of `matching.match`; they do not change the level, unless a limit stops them (then it
            is not kept).
    """
    if supports is None:
        n, m = sorted((n, m))
    key = {
        "n": int(n),
        "m": int(m),
        "d": int(d),
        "signed": signed,
        "tied": tied,
        "threshold": float(threshold),
        "supports": support_codes(supports),
    }
    rows = partial(_gaussian, n, m, d, supports)
    return sampled(key, rows, None if tied else rows, n_draws(max(n, m)), **solver)


def support_codes(supports: tuple[Bools, Bools] | None) -> list[str]:
    """What names two supports in a key."""
    return [hashlib.sha256(np.packbits(side).tobytes()).hexdigest() for side in supports or ()]


def sampled(key: dict[str, Any], rows: Rows, encoders: Rows | None, draws: int, **solver: Any) -> Null:
    """Scores of draws of two dictionaries, kept by `key` in memory and in the user's cache folder.

    Args:
        key: Decides the level; has `n`, `m`, `d`, `signed`, `threshold`.
        rows: Draws the rows of both sides from the generator of a draw.
        encoders: Draws their encoders; None where these are the rows themselves.
        draws: How many.
        solver: See `null_scores`.
    """
    key = {"version": _VERSION, **key}
    name = digest(key, 32)
    if name not in _MEMORY:
        path = _folder() / f"{name}.json"
        null = _kept(path, key)
        if null is None:
            null = _sample(key, rows, encoders, draws, solver)
            if not null.proven:
                return null
            _keep(path, key, null)
        _MEMORY[name] = null
    return _MEMORY[name]


def corrected(score: float, null: float) -> float | None:
    """(score - null) / (1 - null): 0 at chance, 1 where the score is 1; None where chance alone gives 1."""
    return None if null >= 1 else (score - null) / (1 - null)


def null_size(n: int) -> int:
    """The size whose null is used for n alive latents: n itself up to 4,096, two significant digits above."""
    if n <= 4096:
        return n
    unit = 10 ** (len(str(n)) - 2)
    return int(round(n / unit) * unit)


def n_draws(n: int) -> int:
    """Draws for dictionaries of at most n latents."""
    return 10 if n <= 2048 else 5 if n <= 4096 else 3


def level(draws: Sequence[float], *, misses: int | None = None) -> NullLevel:
    """Mean and 95 % t-interval of at least two draws; `misses`: for a share, the pairs in all draws."""
    values = np.asarray(draws, dtype=np.float64)
    value = float(values.mean())
    if misses and not values.any():
        return NullLevel(0.0, 0.0, round(1 - 0.05 ** (1 / misses), 10), len(values), 0.0)
    sd = float(values.std(ddof=1))
    half = t_quantile(len(values) - 1) * sd / math.sqrt(len(values))
    least = 0.0 if misses else -1.0
    low, high = max(least, value - half), min(1.0, value + half)
    return NullLevel(round(value, 10), round(low, 10), round(high, 10), len(values), round(sd, 10))


def _sample(key: dict[str, Any], rows: Rows, encoders: Rows | None, number: int, solver: dict[str, Any]) -> Null:
    draws: dict[str, list[float]] = {id: [] for id in ("sfr", "strict-shared", "matched-cosine", "mmcs")}
    curves, histograms, proven = [], [], True
    n, m, d, signed, threshold = (key[name] for name in ("n", "m", "d", "signed", "threshold"))
    smaller = min(n, m)
    every = np.ones(n, dtype=bool), np.ones(m, dtype=bool)
    for draw in range(number):
        rng = np.random.default_rng((n, m, d, draw))
        found = compare(*rows(rng), *every, signed=signed, **solver)
        matching = found.matching
        proven = proven and matching.proven
        draws["sfr"].append(n_shared(matching, threshold) / smaller)
        draws["matched-cosine"].append(matching.total / smaller)
        draws["mmcs"].append(found.mmcs)
        strict = int((matching.cosines >= threshold).sum())
        if strict and encoders is not None:
            encoder = match(*encoders(rng), signed=signed, **solver)
            proven = proven and encoder.proven
            strict = n_strict(matching, encoder, n, threshold)
        draws["strict-shared"].append(strict / smaller)
        curves.append(curve(matching, smaller))
        histograms.append(np.histogram(np.clip(matching.cosines, -1, 1), BINS)[0] / smaller)
    levels = {id: level(values, misses=number * smaller if id in _SHARES else None) for id, values in draws.items()}
    return Null(n, m, d, levels, _rounded(np.mean(curves, 0)), _rounded(np.mean(histograms, 0)), proven)


def _gaussian(
    n: int, m: int, d: int, supports: tuple[Bools, Bools] | None, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # Gaussian rows point uniformly; matching normalises them
    a, b = rng.standard_normal((n, d), dtype=np.float32), rng.standard_normal((m, d), dtype=np.float32)
    return (a, b) if supports is None else (a * supports[0], b * supports[1])


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 10) for value in values)


def _folder() -> Path:
    return cache_folder() / "null"


def _keep(path: Path, key: dict[str, Any], null: Null) -> None:
    levels = {id: level.to_json() for id, level in null.levels.items()}
    with contextlib.suppress(OSError, SaebenchError):  # a cache that cannot be written costs time, nothing else
        write_json(
            path, sealed({"key": key, "levels": levels, "curve": null.curve, "histogram": null.histogram}, _SEAL)
        )


def _kept(path: Path, key: dict[str, Any]) -> Null | None:
    """The null that was kept; None where there is none that is believed, and of one that was damaged a line tells."""
    if not os.path.lexists(path):
        return None
    try:
        found = read_sealed(path, _SEAL)
        if found["key"] != key:
            raise Damaged(f"{path}: damaged (it holds the levels of other sizes)")
    except Damaged as error:
        console.say(f"{error.found}. It is sampled again")
        return None
    except SaebenchError:  # it cannot be read: that costs time, nothing else
        return None
    levels = {id: NullLevel(**level) for id, level in found["levels"].items()}
    return Null(key["n"], key["m"], key["d"], levels, tuple(found["curve"]), tuple(found["histogram"]))
