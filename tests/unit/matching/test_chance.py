"""The chance level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saebench.matching import match
from saebench.matching.agreement import chance
from saebench.matching.agreement.chance import corrected, level, null_scores, null_size
from saebench.matching.agreement.cosines import BINS, CURVE, THRESHOLD


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(chance, "_MEMORY", {})


def null_cosine(n: int, m: int, d: int, *, signed: bool = True) -> float:
    return null_scores(n, m, d, signed=signed).levels["matched-cosine"].value


def test_the_level_is_what_independent_draws_give() -> None:
    rng = np.random.default_rng(99)
    draws = [match(rng.standard_normal((80, 16)), rng.standard_normal((60, 16))).cosines.mean() for _ in range(20)]
    found = null_scores(80, 60, 16).levels["matched-cosine"]
    spread = np.std(draws, ddof=1)
    assert found.value == pytest.approx(np.mean(draws), abs=5 * spread / np.sqrt(10))
    assert found.low < found.value < found.high
    # half a t-interval of 10 draws: 2.26 spreads over the root of 10
    assert (found.high - found.low) / 2 == pytest.approx(2.262 * spread / np.sqrt(10), rel=0.6)


def test_slow_reference_of_every_level() -> None:
    """The draws made again, each score counted pair by pair."""
    n, m, d, threshold = 7, 5, 3, 0.6
    sums = dict.fromkeys(("sfr", "strict-shared", "matched-cosine", "mmcs"), 0.0)
    curve = np.zeros(len(CURVE))
    for draw in range(10):
        rng = np.random.default_rng((m, n, d, draw))
        A, B = (rng.standard_normal((rows, d), dtype=np.float32).astype(float) for rows in (m, n))
        cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in B] for a in A])
        matching = match(A, B)
        pairs = dict(zip(matching.rows.tolist(), matching.columns.tolist(), strict=True))
        sums["sfr"] += sum(cosines[i, j] > threshold for i, j in pairs.items()) / m
        sums["matched-cosine"] += sum(cosines[i, j] for i, j in pairs.items()) / m
        sums["mmcs"] += (cosines.max(1).mean() + cosines.max(0).mean()) / 2
        E, F = (rng.standard_normal((rows, d), dtype=np.float32).astype(float) for rows in (m, n))
        encoder = match(E, F)
        read = dict(zip(encoder.rows.tolist(), zip(encoder.columns, encoder.cosines, strict=True), strict=True))
        sums["strict-shared"] += (
            sum(cosines[i, j] >= threshold and read[i][0] == j and read[i][1] >= threshold for i, j in pairs.items())
            / m
        )
        curve += [sum(cosines[i, j] > t for i, j in pairs.items()) / m for t in CURVE]
    found = null_scores(n, m, d, tied=False, threshold=threshold)
    assert {id: of.value for id, of in found.levels.items()} == pytest.approx(
        {id: x / 10 for id, x in sums.items()}, abs=1e-6
    )
    assert found.curve == pytest.approx(curve / 10)
    assert found.levels["strict-shared"].value < found.levels["sfr"].value
    tied = null_scores(n, m, d, threshold=threshold).levels
    assert tied["strict-shared"] == tied["sfr"] == found.levels["sfr"]


def test_grows_with_the_dictionary_and_falls_with_the_width() -> None:
    assert null_cosine(200, 200, 32) > null_cosine(50, 50, 32) > null_cosine(50, 50, 128) > 0
    assert null_cosine(50, 50, 32, signed=False) > null_cosine(50, 50, 32)
    assert null_scores(50, 50, 3).levels["sfr"].value > null_scores(50, 50, 32).levels["sfr"].value == 0


def test_sides_may_be_swapped_and_sums_add_up() -> None:
    found = null_scores(30, 50, 8)
    assert found == null_scores(50, 30, 8)
    assert sum(found.histogram) == pytest.approx(1)
    over = sum(share for share, edge in zip(found.histogram, BINS, strict=False) if edge >= THRESHOLD - 1e-9)
    assert over == pytest.approx(found.levels["sfr"].value)
    assert found.curve[CURVE.index(0.7)] == pytest.approx(found.levels["sfr"].value)


def test_a_share_that_never_occurred_has_the_rule_of_three_as_upper_end() -> None:
    found = null_scores(50, 50, 64).levels["sfr"]
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(3 / (10 * 50), rel=0.01)


def test_level_by_hand() -> None:
    found = level([0.1, 0.2, 0.3])
    # mean 0.2, spread 0.1, t with 2 degrees of freedom 4.3027
    assert (found.value, found.draws) == (0.2, 3)
    assert found.low == pytest.approx(0.2 - 4.302653 * 0.1 / np.sqrt(3))
    assert found.high == pytest.approx(0.2 + 4.302653 * 0.1 / np.sqrt(3))
    assert level([0.9, 0.2, 0.9], misses=3).high == 1


def test_corrected() -> None:
    assert corrected(0.6, 0.2) == pytest.approx(0.5)
    assert corrected(0.2, 0.2) == 0
    assert corrected(1, 0.2) == 1
    assert corrected(1, 1) is None


def test_sizes_are_rounded_above_4096_alone() -> None:
    assert [null_size(n) for n in (3, 4095, 4096, 4149, 16384, 131072)] == [3, 4095, 4096, 4100, 16000, 130000]


def test_kept_by_size_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = null_scores(20, 30, 8)
    assert len(list((tmp_path / "saebench" / "null").iterdir())) == 1
    monkeypatch.setattr(chance, "_MEMORY", {})
    monkeypatch.setattr(chance, "_sample", lambda *_: pytest.fail("it stands on disk"))
    assert null_scores(20, 30, 8) == first


def test_what_was_kept_and_changed_is_named_and_sampled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, other = null_scores(20, 30, 8), null_scores(21, 30, 8)
    assert first != other
    one, two = sorted((tmp_path / "saebench" / "null").iterdir())
    kept = one.read_text()
    nudged = kept.replace('"value": 0.', '"value": 0.1', 1)
    assert nudged != kept
    for text in ("", "{", "[]", "{}", nudged, two.read_text()):
        one.write_text(text)
        monkeypatch.setattr(chance, "_MEMORY", {})
        assert (null_scores(20, 30, 8), null_scores(21, 30, 8)) == (first, other)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{one}: damaged ")
        assert line.endswith(". It is sampled again")
        assert one.read_text() == kept


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = null_scores(20, 30, 8)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(chance, "_MEMORY", {})
    assert null_scores(20, 30, 8) == first


def test_a_support_has_a_level_of_its_own() -> None:
    eye = np.eye(6, dtype=bool)
    found = null_scores(6, 6, 6, signed=False, supports=(eye, eye))
    assert found.levels["matched-cosine"].value == found.levels["sfr"].value == 1
    assert corrected(1, found.levels["sfr"].value) is None
    assert null_scores(6, 6, 6, signed=False).levels["sfr"].value < 1
