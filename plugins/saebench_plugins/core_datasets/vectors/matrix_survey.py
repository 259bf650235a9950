"""What a matrix of vectors is like: values that are no numbers, rows and coordinates that decide every score. Loads no
torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saebench.api import Findings, Problem, Split, SuiteError, located
from saebench_plugins.core_datasets.plugin import ActivationsOptions
from saebench_plugins.core_datasets.texts.lines import signature
from saebench_plugins.core_datasets.vectors.matrices import KeyProblem, Matrix, held_out_rows, open_matrix

MAX_SCAN_BYTES = 1 << 30
"""Of float32: the plan reads all of a matrix up to this size, and evenly spaced blocks of a larger one."""
MAX_SAMPLE_BYTES = 1 << 26
"""Of float32, for means, spreads and lengths: all rows, or evenly spaced blocks."""
BLOCKS = 256
GIANT = 100.0
"""A row is giant when its squared distance from the middle is this many times the median row's."""
GIANT_SHARE = 0.5
"""Share of the variance from which on giant rows are said."""
FAR = 10.0
"""A coordinate is far from zero when its mean is this many times its spread."""
FAR_SHARE, MEAN_SHARE = 0.5, 0.9
"""Shares of the squared length that means of far coordinates, or all means, carry, from which on they are said."""
TINY = 1e-3
"""A row is tiny when its length is under this share of the median row's."""
TINY_SHARE = 1.0
"""Mean of median length / length, counted over tiny rows, from which on they are said: about what they add to
`l2-ratio`."""
RELEVANT = 0.01
"""Share of values under float16's normal range, or of held-out rows that are copies, from which on they are said."""
_SMALLEST = 2.0**-14


@dataclass
class MatrixSurvey:
    """What was found.

    Attributes:
        rows: Of the matrix.
        bad: A line about values that are no finite float32 numbers, or None.
        facts: For the record.
        remarks: What a person should know.
    """

    rows: int
    bad: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def problems(options: ActivationsOptions) -> Sequence[Problem]:
    """What is wrong with the file."""
    try:
        bad = survey_matrix(options).bad
    except SuiteError as error:
        return [Problem("key" if isinstance(error, KeyProblem) else "path", str(error), data=True)]
    return [Problem("path", bad, data=True)] if bad else []


def findings(options: ActivationsOptions) -> Findings:
    """For the plan."""
    found = survey_matrix(options)
    held_out = int(held_out_rows(found.rows)[0].sum())
    rows: dict[Split, int] = {"train": found.rows - held_out, "held-out": held_out}
    why = (
        f"{options.path}: none of its {found.rows} rows falls into this part (rows are held out in blocks, "
        "one in five). Give more rows."
    )
    return Findings(tuple(found.remarks), {part: why for part, n in rows.items() if not n}, rows)


def survey_matrix(options: ActivationsOptions) -> MatrixSurvey:
    """What is seen in seconds; remembered until the file changes.

    Raises:
        SuiteError: The file cannot be read as a matrix.
    """
    open_matrix(options)
    return _survey_matrix(options, signature(located(options.path)))


def demand_finite(options: ActivationsOptions) -> None:
    """Reads every value, once for each state of the file.

    Raises:
        SuiteError: With the first row that holds a value that is no finite float32 number.
    """
    open_matrix(options)  # a missing file is told with its neighbours
    if bad := _first_bad(options, signature(located(options.path))):
        raise SuiteError(bad)


@lru_cache(maxsize=32)
def _first_bad(options: ActivationsOptions, _signature: tuple[int, int, int]) -> str | None:
    matrix = open_matrix(options)
    return _Scan(matrix).over(matrix.pieces()).bad()


@lru_cache(maxsize=32)
def _survey_matrix(options: ActivationsOptions, _signature: tuple[int, int, int]) -> MatrixSurvey:
    matrix = open_matrix(options)
    found = MatrixSurvey(matrix.shape[0])
    scan = _Scan(matrix, copies=True).over(_spread(matrix, MAX_SCAN_BYTES))
    found.bad = scan.bad()
    if found.bad is None:
        sample = np.concatenate([rows for _, rows in _spread(matrix, MAX_SAMPLE_BYTES)])
        found.facts["rows_read"], found.facts["rows_sampled"] = scan.rows, len(sample)
        where = (
            options.path if len(sample) == found.rows else f"{options.path} ({len(sample):,} of {found.rows:,} rows)"
        )
        for facts, remark in (
            _giant_rows(sample),
            _tiny_rows(sample),
            _mean(sample),
            scan.copies(),
            _underflow(matrix, sample),
        ):
            found.facts |= facts
            found.remarks += [f"{where}: {remark}"] if remark else []
    return found


def _spread(matrix: Matrix, limit: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All rows, or evenly spaced blocks of rows of `limit` bytes."""
    n, d = matrix.shape
    if 4 * n * d <= limit:
        yield from matrix.pieces()
        return
    rows = max(1, limit // (4 * d * BLOCKS))
    for start in np.unique(np.linspace(0, n - rows, BLOCKS).astype(np.int64)).tolist():
        yield from matrix.pieces(slice(start, start + rows))


class _Scan:
    """Reads every value once: for those that are no numbers, and for rows that are in both parts."""

    def __init__(self, matrix: Matrix, *, copies: bool = False) -> None:
        self._matrix, self._copies = matrix, copies
        self.rows = self._n_bad = 0
        self._first: tuple[int, int] | None = None
        self._held_out = held_out_rows(matrix.shape[0])[0]
        self._codes: dict[bool, list[NDArray[np.uint64]]] = {False: [], True: []}
        draws = np.random.default_rng(0)
        self._factors = draws.integers(0, 2**64, matrix.shape[1], dtype=np.uint64) | np.uint64(1)

    def over(self, pieces: Iterator[tuple[int, NDArray[np.float32]]]) -> _Scan:
        """Takes the rows in."""
        for first, rows in pieces:
            self.rows += len(rows)
            finite = np.isfinite(rows)
            if not finite.all():
                row, column = (int(index[0]) for index in np.nonzero(~finite))
                self._first = self._first or (first + row, column)
                self._n_bad += int((~finite.all(1)).sum())
            if self._copies:
                codes = (rows.view(np.uint32).astype(np.uint64) * self._factors).sum(1, dtype=np.uint64)
                held_out = self._held_out[first : first + len(rows)]
                for part in (False, True):
                    self._codes[part].append(codes[held_out == part])
        return self

    def bad(self) -> str | None:
        """A line about values that are no finite float32 numbers."""
        if self._first is None:
            return None
        row, column = self._first
        value = (
            float(self._matrix.raw[row, column])
            if self._matrix.dtype != "bfloat16"
            else float(self._matrix.read([row])[0, column])
        )
        what = "cannot be held by float32" if np.isfinite(value) else "is no finite number"
        part = "held-out" if self._held_out[row] else "training"
        return (
            f"{self._matrix.name}: row {row} (of the {part} part), column {column} is {value:g}, which {what}; "
            f"so it is in {self._n_bad:,} of {self.rows:,} rows. Take these rows out, or mend them."
        )

    def copies(self) -> tuple[dict[str, Any], str | None]:
        """Held-out rows that are in the training part as well."""
        train, held_out = (np.concatenate(self._codes[part]) for part in (False, True))
        n = int(np.isin(held_out, train).sum())
        remark = f"{n:,} of {len(held_out):,} held-out rows are equal to training rows: scores favour what remembers."
        return {"held_out_copies": n}, remark if n > RELEVANT * len(held_out) else None


def _giant_rows(sample: NDArray[np.float32]) -> tuple[dict[str, Any], str | None]:
    """Rows so long that they decide every sum of squares."""
    half = len(sample) // 2
    middle = np.partition(sample, half, axis=0)[half].astype(np.float64)  # numpy's median adds two float32 values
    mean = sample.mean(0, dtype=np.float64)
    lengths = _squares(sample, middle)
    typical = float(np.median(lengths[lengths > 0])) if (lengths > 0).any() else 0.0
    giant = lengths > GIANT * typical
    about_mean = _squares(sample, mean)
    total = float(about_mean.sum())
    if not total > 0:
        return {"variance": 0.0}, "all rows are equal: no score of a reconstruction has a value."
    rows, variance = float(giant.mean()), float(about_mean[giant].sum()) / total
    facts = {"giant_rows": int(giant.sum()), "giant_rows_variance_share": round(variance, 6)}
    if variance < GIANT_SHARE or not giant.any():
        return facts, None
    return facts, (
        f"{_percent(rows)} of the rows carry {_percent(variance)} of the variance. They decide every score that sums "
        "squares (fvu, mse, variance-explained); cosine counts every row alike."
    )


def _tiny_rows(sample: NDArray[np.float32]) -> tuple[dict[str, Any], str | None]:
    """Rows so short that they decide every mean of ratios; rows of zeros count in none."""
    lengths = np.sqrt(_squares(sample, np.zeros(sample.shape[1])))
    lengths = lengths[lengths > 0]
    if not lengths.size:
        return {}, None
    typical = float(np.median(lengths))
    tiny = lengths[lengths < TINY * typical]
    remark = (
        f"{len(tiny):,} of the rows {'is' if len(tiny) == 1 else 'are'} so short (the shortest has "
        f"{tiny.min() / typical:.1g} of the median length) that "
        "l2-ratio, a mean over rows of ratios of lengths, is decided there. Take short rows out, or read "
        "relative-bias, which sums first."
        if tiny.size and float((typical / tiny).sum()) > TINY_SHARE * len(lengths)
        else None
    )
    return {"tiny_rows": len(tiny)}, remark


def _mean(sample: NDArray[np.float32]) -> tuple[dict[str, Any], str | None]:
    """A mean row that is long beside the spread around it."""
    mean = sample.mean(0, dtype=np.float64)
    spread = np.sqrt(_mean_squares(sample, mean))
    length = float(mean @ mean + (spread @ spread))
    share = float(mean @ mean) / length if length > 0 else 0.0
    far = np.flatnonzero(np.abs(mean) > FAR * spread)
    far_share = float(mean[far] @ mean[far]) / length if length > 0 else 0.0
    far = far[np.argsort(-np.abs(mean[far]), kind="stable")]
    facts = {"mean_share": round(share, 6), "far_coordinates": len(far)}
    if (share < MEAN_SHARE and far_share < FAR_SHARE) or not spread.any():
        return facts, None
    named = "; ".join(f"coordinate {j}: mean {mean[j]:.4g}, spread {spread[j]:.3g}" for j in far[:3].tolist())
    more = f" and {len(far) - 3:,} more" if len(far) > 3 else ""
    return facts, (
        f"the mean row carries {_percent(share)} of the squared length{f' ({named}{more})' if named else ''}. Inputs "
        "are scaled to a common "
        "length, in which the spread is small: subtract the mean from the rows first."
    )


def _underflow(matrix: Matrix, sample: NDArray[np.float32]) -> tuple[dict[str, Any], str | None]:
    """Values of a float16 file that lie where float16 has lost digits."""
    if matrix.dtype != "float16":
        return {}, None
    values = np.abs(sample[sample != 0])
    share = float((values < _SMALLEST).mean()) if values.size else 0.0
    remark = (
        f"{_percent(share)} of the values lie under float16's normal range (6.1e-05) and have lost digits. "
        "Save it as float32, or scale it up."
    )
    return {"under_float16": round(share, 6)}, remark if share > RELEVANT else None


def _squares(sample: NDArray[np.float32], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[n]` squared distance of each row from `middle`, in float64."""
    step = max(1, (1 << 22) // sample.shape[1])
    parts = (sample[start : start + step] - middle for start in range(0, len(sample), step))
    return np.concatenate([np.einsum("nd,nd->n", part, part) for part in parts])


def _mean_squares(sample: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[d]` variance of each coordinate, in float64."""
    step = max(1, (1 << 22) // sample.shape[1])
    parts = (sample[start : start + step] - mean for start in range(0, len(sample), step))
    return np.asarray(sum(np.einsum("nd,nd->d", part, part) for part in parts) / len(sample))


def _percent(share: float) -> str:
    """`1.6 %`."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"
