"""The level of untrained samples of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saebench.matching import match
from saebench.matching.agreement import chance
from saebench.matching.agreement.chance import null_scores
from saebench.matching.agreement.cosines import Latents
from saebench.matching.agreement.data_chance import DRAWS, DataSample, data_null_scores, sample_size, too_few
from saebench.matching.agreement.pair import CORRECTED, pair_scores


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(chance, "_MEMORY", {})


def crowded(n: int, d: int, seed: int) -> np.ndarray:
    """Activations around 12 directions, away from the origin."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((12, d))
    return np.asarray(5 + centres[rng.integers(12, size=n)] + 0.6 * rng.standard_normal((n, d)) / np.sqrt(d))


def test_by_hand() -> None:
    # four activations around (3, 0), of two lines: a draw of two a side pairs (+-1, 0) and (0, +-1) as they fall
    sample = DataSample.of(np.array([[4.0, 0.0], [2.0, 0.0], [3.0, 1.0], [3.0, -1.0]]))
    assert sample.rows.tolist() == [[1, 0], [-1, 0], [0, 1], [0, -1]]
    found = data_null_scores(sample, sample, 2, 2)
    slow = []
    for draw in range(DRAWS):
        order = np.random.default_rng((2, 2, 2, draw)).permutation(4)
        a, b = sample.rows[order[:2]].astype(float), sample.rows[order[2:]].astype(float)
        slow.append(max((a[0] @ b[0] + a[1] @ b[1]) / 2, (a[0] @ b[1] + a[1] @ b[0]) / 2))
    level = found.levels["matched-cosine"]
    assert (level.value, level.sd, level.draws) == (
        pytest.approx(np.mean(slow)),
        pytest.approx(np.std(slow, ddof=1)),
        DRAWS,
    )


def test_draws_are_disjoint_parts_of_one_sample() -> None:
    # all rows are unlike: no pair of disjoint draws has a cosine over 0, and two draws from all would share rows
    sample = DataSample(np.eye(40, dtype=np.float32), "eye")
    found = data_null_scores(sample, sample, 20, 20)
    assert found.levels["matched-cosine"].value == found.levels["sfr"].value == 0
    other = DataSample(np.eye(40, dtype=np.float32), "another")
    assert data_null_scores(sample, other, 20, 20).levels["sfr"].value == pytest.approx(0.5, abs=0.15)


def test_a_pair_that_learnt_nothing_scores_at_the_level_within_its_spread() -> None:
    sample = DataSample.of(crowded(4000, 24, 1))
    fresh = crowded(160, 24, 2) - crowded(4000, 24, 1).mean(0)
    scores = pair_scores(Latents(fresh[:80]), Latents(fresh[80:]), data=(sample, sample))
    for id in ("sfr", "matched-cosine", "mmcs"):
        level = scores.data_null[id]
        value, corrected = scores.values[id], scores.corrected[id]
        assert value is not None
        assert corrected is not None
        assert abs(value - level.value) < 4 * level.sd
        # what random directions reach is far under it, and the corrected form goes by the larger
        assert level.value > scores.null[id].value + 0.3
        assert corrected == pytest.approx((value - level.value) / (1 - level.value))


def test_corrected_goes_by_random_directions_where_these_reach_more() -> None:
    rng = np.random.default_rng(5)
    apart = DataSample(np.eye(64, dtype=np.float32), "eye")
    a, b = (Latents(rng.standard_normal((30, 64))) for _ in range(2))
    scores = pair_scores(a, b, data=(apart, apart))
    null = null_scores(30, 30, 64).levels["matched-cosine"].value
    value = scores.values["matched-cosine"]
    assert scores.data_null["matched-cosine"].value == 0
    assert scores.corrected["matched-cosine"] == pytest.approx((value - null) / (1 - null))


def test_alive_counts_have_a_level_of_their_own() -> None:
    sample = DataSample.of(crowded(1000, 16, 1))
    rng = np.random.default_rng(0)
    dead = np.arange(60) < 40
    a, b = (Latents(rng.standard_normal((60, 16)), dead=dead) for _ in range(2))
    scores = pair_scores(a, b, data=(sample, sample))
    assert scores.data_null["sfr-alive"] == data_null_scores(sample, sample, 20, 20).levels["sfr"]
    assert scores.data_null.keys() == set(CORRECTED) - {"strict-shared"}


def test_a_frozen_support_is_kept() -> None:
    sample = DataSample.of(np.random.default_rng(0).standard_normal((200, 12)))
    support = np.zeros((10, 12), dtype=bool)
    support[np.arange(10), np.arange(10)] = True  # one coordinate each: only the sign is left to chance
    found = data_null_scores(sample, sample, 10, 10, supports=(support, support), signed=False)
    assert found.levels["sfr"].value == 1


def test_too_few_tokens_give_the_reason_and_random_directions_alone() -> None:
    few = DataSample.of(np.random.default_rng(0).standard_normal((19, 8)))
    other = DataSample(few.rows, "other")
    assert too_few(few, few, 10, 9) is None
    assert too_few(few, few, 10, 10) == "20 training tokens are needed for it, there are 19"
    assert too_few(few, other, 19, 10) is None
    assert too_few(few, other, 3, 20) == "20 training tokens are needed for it, there are 19"
    a, b = (Latents(np.random.default_rng(seed).standard_normal((10, 8))) for seed in (1, 2))
    scores = pair_scores(a, b, data=(few, few))
    assert (dict(scores.data_null), scores.no_data_null) == ({}, "20 training tokens are needed for it, there are 19")
    assert scores.corrected["mmcs"] is not None
    with pytest.raises(ValueError, match="20 training tokens"):
        data_null_scores(few, few, 10, 10)


def test_a_sample_is_as_large_as_its_draws_need() -> None:
    assert sample_size(512, 512, 192) == 16_384
    assert sample_size(4096, 4096, 192) == 5 * 8192
    assert sample_size(24_576, 24_576, 2304) == 49_152  # 256 MB hold fewer
    assert match(np.eye(2), np.eye(2)).total == 2
