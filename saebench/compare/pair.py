"""Comparing two SAEs: what `saebench match` does, as a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saebench.api.errors import SuiteError
from saebench.compare.sides import Side, read_side
from saebench.matching.agreement.chance import Null, null_scores
from saebench.matching.agreement.cosines import CURVE, THRESHOLD, Latents
from saebench.matching.agreement.pair import PairScores, pair_scores
from saebench.matching.directions import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

Which = Literal["decoder", "encoder", "both"]
SCHEMA_VERSION = 1
MADE_BY = "saebench match"
IDS = ("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs", "subspace-agreement")
"""Scores of a comparison, in the order of the table."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two SAEs matched one to one.

    Attributes:
        a, b: What was compared.
        which: The directions that were matched.
        signed: False where |cos| was matched.
        threshold: A pair over it is shared.
        scores: All scores, their reasons, the matching with its certificate.
        null: What random directions of these sizes score; None where it was not asked for.
        directions: `[n, d]` and `[m, d]`: what was matched.
        notes: What a reader of the numbers should know.
    """

    a: Side
    b: Side
    which: Which
    signed: bool
    threshold: float
    scores: PairScores
    null: Null | None
    directions: tuple[Floats, Floats]
    notes: tuple[str, ...]

    @property
    def matched_by(self) -> str:
        """In words: what the matching maximised the sum of."""
        name = {"decoder": "decoder cosine", "encoder": "encoder cosine", "both": "mean of both cosines"}[self.which]
        return name if self.signed else f"|{name}|"

    @property
    def n_shared(self) -> int:
        """Pairs with a cosine over the threshold."""
        return int((self.scores.matching.cosines > self.threshold).sum())

    @property
    def median_cosine(self) -> float:
        """Median cosine of the matched pairs."""
        return float(np.median(self.scores.matching.cosines))

    def reason(self, id: str) -> str | None:
        """Why a score has no value; None where it has one."""
        if id == "strict-shared" and self.which != "decoder":
            return "it compares the decoder's matching with the encoder's: match by the decoder"
        return self.scores.reasons.get(id)

    def corrected(self, id: str) -> float | None:
        """A score with chance taken out; subspace agreement is so by its definition."""
        return self.scores.values.get(id) if id == "subspace-agreement" else self.scores.corrected.get(id)

    def to_json(self) -> dict[str, Any]:
        """All numbers, the certificate and the pairs themselves; missing values are null with a reason."""
        matching, scores = self.scores.matching, self.scores
        return {
            "made_by": MADE_BY,
            "schema_version": SCHEMA_VERSION,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "which": self.which,
            "signed": self.signed,
            "threshold": self.threshold,
            "scores": {id: self._score(id) for id in IDS},
            "matched_cosine_median": self.median_cosine,
            "curve": {
                "thresholds": list(CURVE),
                "sfr": _floats(scores.curve),
                "sfr-alive": None if scores.curve_alive is None else _floats(scores.curve_alive),
                "sfr-null": None if self.null is None else list(self.null.curve),
            },
            "shared": {"pairs": self.n_shared, "a": self.n_shared / self.a.d_sae, "b": self.n_shared / self.b.d_sae},
            "certificate": {
                "pairs": len(matching.rows),
                "total": _plain(matching.total),
                "proven": bool(matching.proven),
                "relative_gap": _plain(matching.relative_gap),
                "all_proven": scores.proven,
                "row_prices": _plain(matching.row_prices),
                "column_prices": _plain(matching.column_prices),
                "facts": _plain(matching.facts),
            },
            "notes": list(self.notes),
            "pairs": {
                "a": matching.rows.tolist(),
                "b": matching.columns.tolist(),
                "cosine": [round(float(cosine), 9) for cosine in matching.cosines],
            },
        }

    def _score(self, id: str) -> dict[str, Any]:
        level = self.scores.null.get(id)
        return {
            "value": self.scores.values.get(id),
            "reason": self.reason(id),
            "null": None if level is None else level.to_json(),
            "corrected": self.corrected(id),
        }


def match_folders(
    a: str | Path,
    b: str | Path,
    *,
    which: Which = "decoder",
    signed: bool | None = None,
    threshold: float = THRESHOLD,
    null: bool = True,
    plugins: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
    **solver: Any,
) -> Comparison:
    """Matches the latents of two SAEs one to one and scores the agreement beside chance.

    Args:
        a, b: Checkpoint folders of ours, records of cells, other libraries' folders, or files with a matrix.
        which: Directions to match by. `both`: the mean of the two cosines.
        signed: False matches |cos|; None: so where one of the SAEs is known to have latents of either sign.
        threshold: A pair with a cosine over it is shared.
        null: Score random directions of the same sizes too (kept for the next time).
        plugins: Local plugin files.
        say: Prints one line for people.
        solver: `time_limit_s` (of each matching), `memory_limit_bytes`, `device`, `method`, `solver`, `progress`, as
            `matching.match`.

    Raises:
        SuiteError: A side cannot be read, lacks the directions, or the widths differ.
        PluginError: The plugin of one of our checkpoints is missing or broken.
    """
    from saebench.host import load_catalog

    if which not in ("decoder", "encoder", "both"):
        raise SuiteError(f"which: got {which!r}, allowed are decoder, encoder, both")
    if not 0 <= threshold < 1:
        raise SuiteError(f"threshold: got {threshold}, a cosine from 0 up to, not including, 1 is allowed")
    catalog = load_catalog(plugins, say)
    sides = read_side(a, catalog=catalog), read_side(b, catalog=catalog)
    rows = _directions(sides[0], which, a), _directions(sides[1], which, b)
    _fit(rows, (a, b))
    if signed is None:
        signed = not any(side.signed_latents for side in sides)
    latents = [
        Latents(directions, side.encoder if which == "decoder" else None, side.dead)
        for directions, side in zip(rows, sides, strict=True)
    ]
    say(f"matching {sides[0].d_sae:,} with {sides[1].d_sae:,} latents of width {sides[0].decoder.shape[1]:,}")
    scores = pair_scores(*latents, signed=signed, threshold=threshold, null=null, **solver)
    level = None
    if null:
        # pair_scores sampled the same null, so it is in memory
        tied = any(item.encoder is None for item in latents) or all(item.tied for item in latents)
        n, m = map(len, rows)
        level = null_scores(n, m, rows[0].shape[1], signed=signed, tied=tied, threshold=threshold, **solver)
    return Comparison(*sides, which, signed, threshold, scores, level, rows, _notes(*sides, which, level))


def _directions(side: Side, which: Which, given: str | Path) -> Floats:
    """`[d_sae, d]`: what is matched.

    For `both` the unit rows of the two side by side: their cosine is the mean of both cosines.
    """
    if which == "decoder":
        return side.decoder
    if side.encoder is None:
        raise SuiteError(f"{given}: has no encoder directions. Use --which decoder.")
    if which == "encoder":
        return side.encoder
    return np.concatenate([unit_rows(np.asarray(m, dtype=np.float64)) for m in (side.decoder, side.encoder)], axis=1)


def _fit(rows: tuple[Floats, Floats], given: tuple[str | Path, str | Path]) -> None:
    (n, width_a), (m, width_b) = rows[0].shape, rows[1].shape
    if width_a != width_b:
        turned = width_a == m or width_b == n
        hint = " One of them seems to be stored with a column a latent: transpose it." if turned else ""
        raise SuiteError(
            f"{given[0]} has directions of width {width_a}, {given[1]} of width {width_b}; both must come from one "
            f"site of one model.{hint}"
        )


def _notes(a: Side, b: Side, which: Which, null: Null | None) -> tuple[str, ...]:
    notes = [f"{label}: {note}" for label, side in (("A", a), ("B", b)) for note in side.notes]
    if a.support != b.support:
        notes.append(
            "The two have different frozen supports (mask seeds): their directions cannot be close however alike they "
            "work. "
            "In a suite, matched-correlation compares such SAEs by what they do."
        )
    elif a.support is not None and null is not None:
        notes.append("Both have the same frozen support: random directions on it would agree more than the null here.")
    if null is not None and not null.proven:
        notes.append("A limit stopped the matching of random directions, so the null is too low.")
    if a.site and b.site and a.site != b.site:
        notes.append(f"A reads {a.site}, B reads {b.site}: directions of different sites share no axes.")
    if which == "encoder":
        notes.append("SFR and the others are of encoder directions here.")
    return tuple(notes)


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]


def _plain(value: Any) -> Any:
    """A fact as JSON holds it: numpy's numbers and arrays become Python's, what is not finite null."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
