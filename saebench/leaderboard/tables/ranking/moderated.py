"""Variances over few seeds, each drawn towards what all contenders of a board show together, and tests that use them.

Three seeds say little of a variance: t with two degrees of freedom needs a difference of 4.3 standard errors. The
variances of all rows of a metric say how large variances are and how much they differ. Each is replaced by the mean of
itself and of that prior, weighted by degrees of freedom (Smyth 2004, "Linear models and empirical Bayes methods",
section 4; limma's eBayes).

Two changes, both because seeds' variances differ more than an inverse chi-squared prior says: the prior has at most
`MOST_PRIOR_DF` degrees of freedom, and its variance is the geometric mean of Smyth's estimate and of the plain mean of
the variances, which lies higher the more they differ. `benchmarks/statistics` has what this does to errors and power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from scipy.special import betainc, polygamma, psi

from saebench.base.student import t_quantile

MOST_PRIOR_DF = 2.5
"""So that 5 contenders of unequal spread (h = 1) with 3 seeds are falsely separated on less than .07 of boards (.0675);
3 is at or over it, 6 gives .09. Fewer find less."""
LEAST_VARIANCES = 4
"""Fewer say nothing of how variances differ: then each stands alone. Two or three contenders with moderated variances
are falsely separated on .08 to .10 of boards, with Welch's own on .03 to .05."""
ALPHA = 0.05
"""Chance that any of the pairs of one level is separated where none differs."""


@dataclass(frozen=True)
class Spread:
    """A variance and its degrees of freedom."""

    variance: float
    df: float


NO_PRIOR = Spread(0.0, 0.0)


def prior_of(spreads: Sequence[Spread]) -> Spread:
    """What the variances of one metric say together; `NO_PRIOR` where they are too few.

    Variances of zero are left out of it: they are those of seeds that do not differ.
    """
    used = [spread for spread in spreads if spread.variance > 0 and spread.df > 0]
    if len(used) < LEAST_VARIANCES:
        return NO_PRIOR
    logs = [math.log(one.variance) - float(psi(one.df / 2)) + math.log(one.df / 2) for one in used]
    centre = math.fsum(logs) / len(logs)
    between = math.fsum((log - centre) ** 2 for log in logs) / (len(logs) - 1)
    between -= math.fsum(float(polygamma(1, one.df / 2)) for one in used) / len(used)
    df = min(MOST_PRIOR_DF, 2 * _inverse_trigamma(between)) if between > 0 else MOST_PRIOR_DF
    smyth = centre + float(psi(df / 2)) - math.log(df / 2)
    largest = max(one.variance for one in used)  # sums of it alone could be too large or too small for a float
    plain = math.log(largest) + math.log(math.fsum(one.variance / largest for one in used) / len(used))
    return Spread(math.exp((smyth + plain) / 2), df)


def moderated(own: Spread, prior: Spread) -> Spread:
    """The mean of both variances, weighted by degrees of freedom, which add up."""
    df = own.df + prior.df
    return Spread((own.df * own.variance + prior.df * prior.variance) / df if df else 0.0, df)


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = `value` > 0, by Newton's steps on 1 / trigamma, which is nearly linear (Smyth 2004)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        here = float(polygamma(1, x))
        step = here * (1 - here / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-10:
            break
    return x


@dataclass(frozen=True)
class Test:
    """Two means compared: their difference, its standard error and degrees of freedom (Satterthwaite), two-sided p."""

    difference: float
    stderr: float
    df: float
    p: float

    def resolvable(self, n_pairs: int) -> float:
        """The smallest difference that is separated whatever the other pairs are: at `ALPHA / n_pairs`."""
        return t_quantile(self.df, 1 - ALPHA / n_pairs) * self.stderr


def compare(a: float, spread_a: Spread, n_a: int, b: float, spread_b: Spread, n_b: int) -> Test:
    """Welch's test of two means over `n_a` and `n_b` seeds with given (moderated) variances of one seed."""
    parts = (spread_a.variance / n_a, spread_b.variance / n_b)
    total = math.fsum(parts)
    if total == 0:
        return Test(a - b, 0.0, spread_a.df + spread_b.df, 1.0)  # nothing to judge by
    share = parts[0] / total  # squares of variances may be too small or too large for a float
    df = 1 / (share**2 / spread_a.df + (1 - share) ** 2 / spread_b.df)
    t = (a - b) / math.sqrt(total)
    return Test(a - b, math.sqrt(total), df, float(betainc(df / 2, 0.5, df / (df + t * t))))


def most_true(contenders: int, rejected: int) -> int:
    """How many of the pairs of contenders can be equal at most, when `rejected` of them are not.

    Equality is transitive: contenders fall into sets of equals. Of four, of which two differ, at most three pairs are
    equal, not five.
    """
    possible = [1]  # by number of contenders: bit t is set where t pairs of them can be the equal ones
    for n in range(1, contenders + 1):
        possible.append(reduce(or_, (possible[n - size] << (size * (size - 1) // 2) for size in range(1, n + 1))))
    left = contenders * (contenders - 1) // 2 - rejected
    return (possible[contenders] & ((1 << left + 1) - 1)).bit_length() - 1


def step_down(p: Sequence[float], contenders: int) -> list[bool]:
    """Which pairs of contenders differ, so that any equal one is said to with a chance of `ALPHA` at most.

    Holm's procedure (1979) with Shaffer's numbers (1986, "Modified sequentially rejective multiple test procedures"):
    each step divides `ALPHA` by the pairs that can still be equal, given how many are known not to be.
    """
    rejected = [False] * len(p)
    for done, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        if p[index] > ALPHA / min(len(p) - done, most_true(contenders, done)):
            break
        rejected[index] = True
    return rejected
