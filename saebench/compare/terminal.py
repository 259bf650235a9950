"""A comparison for a terminal of 80 columns."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from tabulate import tabulate

from saebench.compare.pair import IDS
from saebench.leaderboard.numbers import fixed, half_width

if TYPE_CHECKING:
    from saebench.compare.pair import Comparison
    from saebench.compare.sides import Side
    from saebench.matching import Matching
    from saebench.matching.agreement.chance import NullLevel

WIDTH = 80
_DASH = "\N{EN DASH}"
_CURVE_AT = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)


def page(comparison: Comparison) -> str:
    """What both are, the scores beside chance, how many match, the certificate; then notes."""
    parts = [
        _side("A", comparison.a),
        _side("B", comparison.b),
        "",
        _table(comparison),
        "",
        *_wrapped(_pairs(comparison)),
        *_wrapped(_curve(comparison)),
        *_wrapped(certificate(comparison.scores.matching)),
        *_others(comparison),
    ]
    notes = [*_reasons(comparison), *comparison.notes]
    if comparison.null is not None:
        notes.append(
            "null: what random directions of the same sizes score, ± the 95 % interval of the mean over "
            f"{max((level.draws for level in comparison.scores.null.values()), default=0)} draws; corrected: (value - "
            "null) / (1 - null). Untrained samples of the training activations reach more: a leaderboard has that "
            "level too. One pair of SAEs has no interval over seeds."
        )
    else:
        notes.append("One pair of SAEs has no interval over seeds, and no null was asked for.")
    return "\n".join([*parts, "", *(line for note in notes for line in _wrapped(note))])


def certificate(matching: Matching) -> str:
    """What is proven of a matching, in a sentence."""
    facts = matching.facts
    rounds = facts.get("rounds")
    how = [str(facts[key]) for key in ("method", "solver") if facts.get(key)]
    if isinstance(rounds, int) and rounds > 0:
        how.insert(0, f"{rounds} round{'s' * (rounds != 1)}")
    made = f" ({', '.join(how)})" if how else ""
    if matching.proven:
        return (
            f"exact: proven gap {f'{matching.relative_gap:.0e}' if matching.relative_gap else '0'} of the total{made}"
        )
    stopped = facts.get("stopped")
    why = f"; stopped by the {stopped} limit" if stopped else ""
    if not math.isfinite(matching.relative_gap):
        return f"NOT proven optimal: nothing is known of how much better the best is{why}{made}"
    return f"NOT proven optimal: the best total is at most {100 * matching.relative_gap:.2g} % higher{why}{made}"


def _side(label: str, side: Side) -> str:
    alive = "" if side.n_alive is None else f", {side.n_alive:,} alive"
    text = (
        f"{side.kind}{', ' + side.detail if side.detail else ''}: "
        f"{side.d_sae:,} latents of width {side.decoder.shape[1]:,}{alive}"
    )
    lines = textwrap.wrap(text, WIDTH - 3)
    # a path is never cut: it is there to be copied
    return "\n".join([f"{label}  {lines[0]}", *(f"   {line}" for line in lines[1:]), f"   {side.path}"])


def _table(comparison: Comparison) -> str:
    at = f"{comparison.threshold:g}"
    names = {
        "sfr": f"SFR (pairs > {at})",
        "sfr-alive": "SFR among alive latents",
        "strict-shared": "strict shared (enc. too)",
        "matched-cosine": "matched cosine (mean)",
        "mmcs": "MMCS (best of any)",
        "subspace-agreement": "subspace of unmatched",
    }
    scores = comparison.scores
    rows = []
    for id in IDS:
        value = scores.values.get(id)
        shown = _DASH if value is None else fixed(value, 3)
        rows.append([names[id], shown, _level(scores.null.get(id)), _corrected(comparison.corrected(id))])
    return tabulate(
        rows,
        headers=[f"by {comparison.matched_by}", "value", "null", "corrected"],
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", "right", "right", "right"),
    )


def _level(level: NullLevel | None) -> str:
    if level is None:
        return _DASH
    half = max(level.value - level.low, level.high - level.value)
    return f"{fixed(level.value, 3)} ± {half_width(half, 3)}"


def _corrected(value: float | None) -> str:
    return _DASH if value is None else fixed(value, 3)


def _pairs(comparison: Comparison) -> str:
    a, b, shared = comparison.a, comparison.b, comparison.n_shared
    covered = " and ".join(
        f"{100 * shared / side.d_sae:.1f} % of {label}'s {side.d_sae:,}" for label, side in (("A", a), ("B", b))
    )
    n = len(comparison.scores.matching.rows)
    return (
        f"{shared:,} of {n:,} pairs have a cosine > {comparison.threshold:g}: {covered} latents; "
        f"median cosine {fixed(comparison.median_cosine, 3)}"
    )


def _curve(comparison: Comparison) -> str:
    cosines = comparison.scores.matching.cosines
    return "pairs over " + "   ".join(f"{at:g}: {100 * float((cosines > at).mean()):.0f}%" for at in _CURVE_AT)


def _others(comparison: Comparison) -> list[str]:
    """A line where another matching (alive latents, encoders) is not proven though the decoders' is."""
    scores = comparison.scores
    if scores.proven or not scores.matching.proven:
        return []
    return _wrapped(
        f"NOT proven optimal: the matching of alive latents or of encoders, by up to {100 * scores.gap:.2g} % of its "
        "total"
    )


def _reasons(comparison: Comparison) -> list[str]:
    missing = [(id, comparison.reason(id)) for id in IDS if comparison.scores.values.get(id) is None]
    return [f"no {id}: {reason}" for id, reason in missing if reason]


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text.replace(" %", "\u00a0%"), WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]
