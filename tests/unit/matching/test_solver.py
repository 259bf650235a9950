"""The solver on few candidates and many rounds; crowds, which it leaves to another; what it tells of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matching_cases import Case, cases, crowd
from verifier import best_total, close_to, verify

from saebench.matching import match
from saebench.matching.assignment import match_factors
from saebench.matching.solve import screen as screens
from saebench.matching.solve import solver as module
from saebench.matching.solve.screen import Screen
from saebench.matching.solve.similarity import Similarity, as_rows
from saebench.matching.solve.solver import Solver, Watch


@pytest.fixture(params=["few candidates", "no near list", "one added", "always partial"])
def hard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ways that large problems go and small ones do not."""
    monkeypatch.setattr(screens, "TILE", (16, 24))
    monkeypatch.setitem(Solver.__init__.__kwdefaults__, "per_row", 1)
    if request.param == "no near list":
        monkeypatch.setattr(module, "_MOST_NEAR", 0)
    elif request.param == "one added":
        monkeypatch.setattr(module, "_MOST_ADDED", 1)
    elif request.param == "always partial":
        monkeypatch.setattr(module, "_PARTIAL", 3)
    return str(request.param)


@pytest.mark.usefixtures("hard")
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cases(50), st.sampled_from(["scipy", "scipy", "ortools"]))
def test_many_rounds_end_at_the_optimum(case: Case, solver: Any) -> None:
    if solver == "ortools":
        pytest.importorskip("ortools")
    found = match_factors(case.factors, signed=case.signed, method="sparse", solver=solver)
    verify(found, case.factors, signed=case.signed)
    assert close_to(found.total, best_total(case.factors, case.signed), len(found.rows))
    assert found.proven


def test_later_passes_look_at_what_can_have_changed_and_miss_nothing(
    hard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every proof, a brute force look for pairs above the prices finds none that it did not find."""
    A, B = crowd(160, 190, 16, 0.1, (30, 20))
    c = (A / np.linalg.norm(A, axis=1, keepdims=True)) @ (B / np.linalg.norm(B, axis=1, keepdims=True)).T
    violators = Solver._violators
    seen = []

    def checked(self: Solver, u: np.ndarray, v: np.ndarray) -> Any:
        before = self.facts["passes"]
        rows, columns, values, over = violators(self, u, v)
        excess = c - u[:, None] - v
        assert over == pytest.approx(np.maximum(0, excess.max(1)), abs=1e-12)
        assert values == pytest.approx(c[rows, columns], abs=1e-13)
        assert (excess[rows, columns] > 0).all()
        if not len(rows):
            assert excess.max() < 2e-12
        seen.append(self.facts["passes"] - before)
        return rows, columns, values, over

    monkeypatch.setattr(Solver, "_violators", checked)
    found = match(A, B, method="sparse")
    assert found.proven
    assert len(seen) == found.facts["rounds"] > 2
    assert seen[0] == pytest.approx(1)
    if hard == "always partial":
        assert min(seen) < 0.9
    if hard == "no near list":
        assert min(seen) == pytest.approx(1)


# ---- crowds
# -----------------------------------------------------------------------------------------------------------


def test_a_crowd_of_near_equal_rows_is_left_to_the_dense_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """No few candidates can be told from the rest: `auto` sees that, and the optimum is proven all the same."""
    A, B = (rows.astype(np.float32) for rows in crowd(1600, 1600, 32, 1e-3, (1500, 1500)))
    sparse = []
    solve = Solver.solve
    monkeypatch.setattr(Solver, "solve", lambda self: sparse.append(solution := solve(self)) or solution)
    found = match(A, B)
    assert [solution.facts["stopped"] for solution in sparse] == ["stalled"]
    assert found.facts["method"] == "dense"
    assert found.facts["stopped"] is None
    assert found.proven
    verify(found, [(A, B)])
    assert close_to(found.total, best_total([(A, B)]), 1600)


def test_what_stalls_stays_sparse_where_dense_is_not_allowed() -> None:
    A, B = crowd(250, 250, 32, 1e-3, (220, 220))
    found = match(A, B, memory_limit_bytes=10**9, method="sparse")
    assert found.facts["method"] == "sparse"
    assert found.proven
    assert close_to(found.total, best_total([(A, B)]), 250)


def test_few_dimensions_go_to_the_dense_solver_at_once() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((1100, 3)), rng.standard_normal((1030, 3))
    assert match(A, B).facts["method"] == "dense"
    A, B = rng.standard_normal((1100, 64)), rng.standard_normal((1030, 64))
    assert match(A, B).facts["method"] == "sparse"


@pytest.mark.parametrize("kind", ["same", "zero", "two"])
def test_all_rows_alike(kind: str) -> None:
    A = np.ones((300, 8)) if kind != "zero" else np.zeros((300, 8))
    if kind == "two":
        A[:100] = -1
    found = match(A, A[:250], method="sparse")
    verify(found, [(A, A[:250])])
    assert found.proven
    assert found.total == pytest.approx({"same": 250, "zero": 0, "two": 250}[kind], abs=1e-12)


# ---- what it tells
# ----------------------------------------------------------------------------------------------------


def test_facts_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    A, B = crowd(300, 320, 24, 0.1, (30, 20))
    quiet = match(A, B, method="sparse")
    assert capsys.readouterr().err == ""
    told = match(A, B, method="sparse", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "[00:00] matching" in shown.err
    assert told.facts == quiet.facts
    assert told.facts["method"] == "sparse"
    assert told.facts["solver"] == "scipy"
    assert told.facts["stopped"] is None
    assert told.facts["rounds"] >= 1
    assert told.facts["passes"] >= 2
    assert 300 * 2 < told.facts["candidates"] < 300 * 320


def test_a_watch_sees_stages_in_order_and_whole_passes() -> None:
    A, B = crowd(300, 320, 24, 0.1, (30, 20))
    stages: list[str] = []
    shares: list[float] = []
    notes: list[str] = []
    solver = Solver(
        Similarity([(as_rows(A, "A"), as_rows(B, "B"))]), watch=Watch(stages.append, shares.append, notes.append)
    )
    solution = solver.solve()
    assert stages[:3] == ["candidates", "assignment", "proof"]
    assert stages[1:] == ["assignment", "proof"] * solution.facts["rounds"]
    assert len(notes) == solution.facts["rounds"]
    assert sum(shares) == pytest.approx(solution.facts["passes"], abs=1e-3)
    assert solution.bound == pytest.approx(solution.u.sum() + solution.v.sum())


def test_memory_that_a_screen_says_it_takes() -> None:
    A, B = crowd(300, 320, 24, 0.1, (30, 20))
    for signed in (True, False):
        similarity = Similarity([(as_rows(A, "A"), as_rows(B, "B"))], signed=signed)
        screen = Screen(similarity)
        copies = sum(matrix.numel() * matrix.element_size() for matrix in (screen.P, screen.Q))
        assert copies < Screen.nbytes(similarity)
