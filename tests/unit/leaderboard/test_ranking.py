"""Scales, moderated variances, curves over the price, verdicts and rank intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from saebench.leaderboard.tables.ranking.curves import Curve, levels_of, shared_price
from saebench.leaderboard.tables.ranking.moderated import (
    MOST_PRIOR_DF,
    NO_PRIOR,
    Spread,
    compare,
    moderated,
    most_true,
    prior_of,
    step_down,
)
from saebench.leaderboard.tables.ranking.scales import IDENTITY, SCALES, scale_for
from saebench.leaderboard.tables.ranking.verdicts import conclude, sample
from saebench.leaderboard.tables.ranks import ranking


def curve(*seeds: list[tuple[float, float]], given: int = 0) -> Curve:
    return Curve({seed: tuple(points) for seed, points in enumerate(seeds)}, given)


def flat(*values: float, price: float = 8.0, given: int = 0) -> Curve:
    return curve(*[[(price, value)] for value in values], given=given)


# --- scales -----------------------------------------------------------------------------------------------------------


@given(st.floats(0.001, 0.999))
def test_scales_have_inverses(value: float) -> None:
    for scale in SCALES.values():
        assert scale.allows(value)
        assert scale.back(scale.to(value)) == pytest.approx(value, rel=1e-9)


def test_a_scale_that_a_value_has_no_place_on_is_not_used() -> None:
    assert scale_for("log", [0.1, 2.0]) is SCALES["log"]
    assert scale_for("log", [0.1, 0.0]) is IDENTITY
    assert scale_for("logit", [0.5, 1.0]) is IDENTITY
    assert scale_for("log-complement", [-3.0, 0.99]) is SCALES["log-complement"]
    assert scale_for("log-complement", [1.0]) is IDENTITY
    assert scale_for("of a later version", [0.5]) is IDENTITY


def test_fvu_and_variance_explained_give_one_ranking() -> None:
    fvus = {"a": [0.2, 0.22, 0.21], "b": [0.3, 0.26, 0.31], "c": [0.24, 0.2, 0.23]}
    of_fvu = ranking({name: flat(*values) for name, values in fvus.items()}, 8, "lower", scale="log")
    of_ve = ranking(
        {name: flat(*(1 - v for v in values)) for name, values in fvus.items()}, 8, "higher", scale="log-complement"
    )
    for a, b in zip(of_fvu.pairs, of_ve.pairs, strict=True):
        assert (a.verdict, a.seeds) == (b.verdict, b.seeds)
        assert a.p == pytest.approx(b.p)
        assert a.difference == pytest.approx(-b.difference)
        assert a.resolvable == pytest.approx(b.resolvable)
    assert {name: found.standing for name, found in of_fvu.contenders.items()} == {
        name: found.standing for name, found in of_ve.contenders.items()
    }


# --- variances --------------------------------------------------------------------------------------------------------


def test_the_prior_by_hand() -> None:
    """Variances 1, 2, 2 and 4 with two degrees of freedom each. trigamma(1) = pi^2 / 6 is more than the logs differ
    (variance 2 / 3 log(2)^2), so the prior has all the degrees of freedom that it may have."""
    found = prior_of([Spread(1.0, 2), Spread(2.0, 2), Spread(2.0, 2), Spread(4.0, 2)])
    assert found.df == MOST_PRIOR_DF == 2.5
    # digamma(1) = -gamma and log(2 / 2) = 0, so each log variance has gamma added
    smyth = math.log(2) + np.euler_gamma + float(special.digamma(1.25)) - math.log(1.25)
    assert found.variance == pytest.approx(math.sqrt(math.exp(smyth) * 9 / 4))
    assert moderated(Spread(1.0, 2), found) == Spread(pytest.approx((2 * 1.0 + 2.5 * found.variance) / 4.5), 4.5)


def test_variances_that_differ_much_lend_less() -> None:
    generator = np.random.default_rng(0)
    true = np.exp(generator.uniform(-4, 4, 400))
    found = prior_of([Spread(v * s, 2) for v, s in zip(true, generator.chisquare(2, 400) / 2, strict=True)])
    # trigamma(df / 2) is the variance of the true logs, 64 / 12, of which the sum of the samples' is an estimate
    assert float(special.polygamma(1, found.df / 2)) == pytest.approx(64 / 12, rel=0.25)


def test_few_variances_lend_nothing_and_zeros_are_left_out() -> None:
    assert prior_of([Spread(1.0, 2), Spread(2.0, 2), Spread(2.0, 2)]) == NO_PRIOR
    assert prior_of([Spread(0.0, 2)] * 9 + [Spread(1.0, 2), Spread(2.0, 2), Spread(2.0, 2)]) == NO_PRIOR
    assert moderated(Spread(1.0, 2), NO_PRIOR) == Spread(1.0, 2)


@given(st.lists(st.floats(1e-200, 1e200), min_size=4, max_size=12), st.floats(1e-50, 1e50))
def test_the_prior_follows_units(variances: list[float], factor: float) -> None:
    one = prior_of([Spread(value, 2) for value in variances])
    other = prior_of([Spread(value * factor, 2) for value in variances])
    assert other.df == pytest.approx(one.df, rel=1e-6)
    assert other.variance == pytest.approx(one.variance * factor, rel=1e-6)


def test_without_a_prior_the_test_is_welch_s() -> None:
    a, b = [0.90, 0.93, 0.91], [0.88, 0.90, 0.905, 0.91, 0.87]
    found = compare(
        float(np.mean(a)),
        Spread(float(np.var(a, ddof=1)), 2),
        3,
        float(np.mean(b)),
        Spread(float(np.var(b, ddof=1)), 4),
        5,
    )
    scipys = stats.ttest_ind(a, b, equal_var=False)
    assert (found.p, found.df) == pytest.approx((scipys.pvalue, scipys.df))
    assert found.resolvable(1) == pytest.approx(stats.t.ppf(0.975, scipys.df) * found.stderr)


def test_equality_is_transitive() -> None:
    """Four contenders: six pairs; with one apart, the most that are equal is three, of which none, one or two less."""
    assert [most_true(4, rejected) for rejected in range(7)] == [6, 3, 3, 3, 2, 1, 0]
    assert [most_true(5, rejected) for rejected in range(11)] == [10, 6, 6, 6, 6, 4, 4, 3, 2, 1, 0]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=7))
def test_no_sets_of_equals_have_more_equal_pairs(sets: list[int]) -> None:
    equal = sum(a == b for a, b in itertools.combinations(sets, 2))
    differ = len(sets) * (len(sets) - 1) // 2 - equal
    assert all(equal <= most_true(len(sets), rejected) for rejected in range(differ + 1))


def test_steps_by_hand() -> None:
    """Three contenders: 0.05 / 3, then 0.05 twice, as one pair at most is equal when another is not."""
    assert step_down([0.04, 0.016, 0.051], 3) == [True, True, False]
    assert step_down([0.017, 0.02, 0.04], 3) == [False, False, False]
    # a pair that cannot be tested counts as one that may be equal
    assert step_down([0.04, 0.016], 3) == [True, True]
    assert step_down([0.03], 3) == [True]
    assert step_down([], 2) == []


# --- curves -----------------------------------------------------------------------------------------------------------


def test_interpolation_is_linear_in_log_price() -> None:
    found = curve([(8.0, 0.8), (32.0, 0.9)]).at(16.0)
    assert (found.way, found.price) == ("interpolated", 16.0)
    assert found.values == {0: pytest.approx(0.85)}


def test_beyond_two_percent_nothing_is_taken() -> None:
    points = curve([(8.0, 0.8), (16.0, 0.9)])
    assert points.at(16.3).values == {0: 0.9}
    assert points.at(16.4).values == {}
    assert points.at(7.8).values == {}


def test_all_contenders_of_a_level_are_read_at_one_price() -> None:
    exact, off = curve([(8.0, 0.0), (16.0, 1.0)]), curve([(8.9, 0.0), (14.5, 1.0)])
    assert shared_price([exact, off], 16.0) == 14.5
    assert shared_price([exact, off], 8.0) == 8.9
    assert shared_price([exact, off], 11.0) == 11.0
    assert shared_price([exact, curve([(100.0, 1.0)])], 16.0) == 16.0


def test_a_seed_that_lost_a_point_does_not_narrow_the_range() -> None:
    lost = curve([(8.0, 0.8), (16.0, 0.9)], [(8.0, 0.81), (16.0, 0.91)], [(16.0, 0.92)])
    assert lost.ends() == [8.0, 16.0]
    assert lost.at(8.0).values == {0: 0.8, 1: 0.81}


def test_levels_are_distinct_targets() -> None:
    assert levels_of([16, 8, 8.4, 16, 0]) == [8, 16]
    assert levels_of([]) == []


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_ranks_are_intervals_and_ties_are_named() -> None:
    curves = {"a": flat(0.90, 0.91, 0.92), "b": flat(0.901, 0.909, 0.921), "c": flat(0.70, 0.71, 0.72)}
    found = ranking(curves, 8.0, "higher")
    standings = {name: (item.standing.best, item.standing.worst) for name, item in found.contenders.items()}
    assert standings == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert found.contenders["a"].standing.ties == ("b",)
    assert [(pair.a, pair.b, pair.verdict) for pair in found.pairs] == [
        ("a", "b", "tie"), ("a", "c", "separated"), ("b", "c", "separated"),
    ]  # fmt: skip
    turned = ranking(curves, 8.0, "lower").contenders
    assert {name: (item.standing.best, item.standing.worst) for name, item in turned.items()} == {
        "a": (2, 3), "b": (2, 3), "c": (1, 1),
    }  # fmt: skip


def test_what_cannot_be_told_says_why() -> None:
    curves = {
        "a": flat(0.9, 0.91),
        "b": flat(0.8, 0.81),
        "single": flat(0.99),
        "far": flat(1.0, 1.1, price=8.4),
        "lost": flat(0.9, 0.93, given=3),
        "scattered": curve([(7.7, 0.9)], [(8.0, 0.9)], [(8.3, 0.9)], given=3),
        "copies": Curve({0: ((8.0, 0.5),)}, 3, "all seeds have the same weights: one training, and no interval"),
    }
    found = ranking(curves, 8.0, "higher")
    reasons = {name: item.standing.reason for name, item in found.contenders.items()}
    assert reasons == {
        "a": None,
        "b": None,
        "single": "one seed",
        "far": "nothing measured at L0 8: the nearest is 8.4, 5 % from it. Sweep its sparsity to compare it",
        "lost": "2 of 3 seeds",
        "scattered": "1 of 3 seeds have a value at L0 8. Sweep its sparsity to compare it",
        "copies": "all seeds have the same weights: one training, and no interval",
    }
    assert found.contenders["lost"].value == pytest.approx(0.915)
    assert {pair.verdict for pair in found.pairs if {pair.a, pair.b} != {"a", "b"}} == {"cannot tell"}
    assert {found.contenders[name].standing.worst for name in "ab"} <= {1, 2}


def test_a_tie_says_what_could_be_told_and_how_many_seeds_would_do() -> None:
    """Two contenders of equal spread 0.01 without a prior, two degrees of freedom each: by the formula."""
    (pair,) = ranking({"a": flat(0.50, 0.51, 0.52), "b": flat(0.51, 0.52, 0.53)}, 8.0, "higher").pairs
    assert pair.verdict == "tie"
    assert pair.df == pytest.approx(4)
    assert pair.sigma == pytest.approx(0.01)
    assert pair.resolvable == pytest.approx(stats.t.ppf(0.975, 4) * math.sqrt(2 / 3) * 0.01)
    assert pair.seeds is not None
    enough, fewer = (stats.t.ppf(0.975, 2 * n - 2) * 0.01 * math.sqrt(2 / n) for n in (pair.seeds, pair.seeds - 1))
    assert enough <= 0.01 < fewer


def test_seeds_that_do_not_differ_are_not_put_apart_by_any_difference() -> None:
    found = ranking({"a": flat(0.9, 0.9, 0.9), "b": flat(0.8, 0.8, 0.8)}, 8.0, "higher")
    assert [pair.verdict for pair in found.pairs] == ["cannot tell"]
    assert "no spread to judge by" in str(found.pairs[0].reason)
    assert {item.standing.best for item in found.contenders.values()} == {None}


def test_alone_there_is_no_rank() -> None:
    found = ranking({"a": flat(0.9, 0.91), "single": flat(0.99)}, 8.0, "higher")
    assert found.contenders["a"].standing.reason == "no other contender to compare with here"


@given(st.lists(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=4), min_size=2, max_size=6), st.booleans())
def test_an_order_by_value_lies_in_every_rank_interval(boards: list[list[float]], higher: bool) -> None:
    """So that no two ranks contradict the values beside them."""
    samples = {str(index): sample(dict(enumerate(values)), Spread(0.001, 3)) for index, values in enumerate(boards)}
    standings, _ = conclude(samples, IDENTITY, higher_is_better=higher)
    order = sorted(samples, key=lambda name: samples[name].estimate if not higher else -samples[name].estimate)
    for place, name in enumerate(order, 1):
        best, worst = standings[name].best, standings[name].worst
        assert best is not None
        assert worst is not None
        assert best <= place <= worst
