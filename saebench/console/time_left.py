"""How much of a run is done and how long the rest takes: predicted seconds of each phase, corrected as it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PRIOR = 0.1
"""Share of the predicted seconds that the prediction's own pace counts as, beside the pace that was seen."""
ALMOST = 0.95
"""A phase that tells no progress counts as done by its time, but never further than this before it ends."""
WHOLE = 1 - 1e-9
"""Of a kind's seconds, from which on all of it is done."""
BEFORE = {"training": ("loading", "reading", "sampling", "activations")}
"""Kinds of which no more is expected when all of a later one is done."""


class TimeLeft:
    """Predicted seconds by kind of phase, and what of them is done.

    Args:
        seconds: Predicted, by kind.
        amounts: What makes the whole of a kind (tokens that are trained, cells that are scored); a kind without is
            judged by time.
    """

    def __init__(self, seconds: Mapping[str, float], amounts: Mapping[str, float]) -> None:
        self._seconds, self._amounts = dict(seconds), dict(amounts)
        self._done = dict.fromkeys(seconds, 0.0)
        self._share = 0.0

    def planned(self, kind: str, amount: float | None) -> float:
        """Predicted seconds of a phase that makes `amount` of its kind; of one without an amount all that is left."""
        left = max(0.0, self._seconds.get(kind, 0.0) - self._done.get(kind, 0.0))
        whole = self._amounts.get(kind)
        if amount is None or not whole:
            return left
        return min(left, self._seconds.get(kind, 0.0) * amount / whole)

    def running(self, kind: str, amount: float | None, share: float | None, elapsed: float) -> float:
        """Predicted seconds that an open phase has done so far."""
        planned = self.planned(kind, amount)
        by_time = min(elapsed, ALMOST * planned)
        return planned * share if share is not None and amount is not None else by_time

    def ended(self, kind: str, amount: float | None, elapsed: float) -> None:
        """Counts a phase that has ended."""
        planned = self.planned(kind, amount)
        if kind in self._done:
            self._done[kind] += planned if amount is not None else min(elapsed, planned)
            if amount is not None and self._done[kind] >= WHOLE * self._seconds[kind]:
                self.leave(BEFORE.get(kind, ()))

    def leave(self, kinds: Iterable[str]) -> None:
        """Nothing more of these kinds comes: what is left of them leaves the prediction."""
        for kind in kinds:
            if kind in self._done:
                self._seconds[kind] = self._done[kind]

    def spared(self, kind: str, amount: float) -> None:
        """So much of a kind is not needed: it leaves the prediction."""
        if kind in self._done:
            self._seconds[kind] -= self.planned(kind, amount)
            self._amounts[kind] = self._amounts.get(kind, 0.0) - amount

    def read(self, running: float, elapsed: float) -> tuple[float, float]:
        """Share that is done, which never falls, and seconds left.

        Args:
            running: Predicted seconds that open phases have done.
            elapsed: Seconds since the prediction was made.
        """
        total = sum(self._seconds.values())
        if total <= 0:
            return 1.0, 0.0
        done = min(total, sum(self._done.values()) + running)
        pace = (elapsed + PRIOR * total) / (done + PRIOR * total)
        self._share = max(self._share, done / total)
        return self._share, (total - done) * pace
