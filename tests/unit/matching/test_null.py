"""The chance level."""

from __future__ import annotations

import numpy as np
import pytest

from saebench.matching import match, null_cosine


def test_one_draw_stands_for_all() -> None:
    rng = np.random.default_rng(99)
    draws = [match(rng.standard_normal((80, 16)), rng.standard_normal((60, 16))).cosines.mean() for _ in range(10)]
    assert null_cosine(80, 60, 16) == pytest.approx(np.mean(draws), abs=6 * np.std(draws) + 1e-3)


def test_grows_with_the_dictionary_and_falls_with_the_width() -> None:
    assert null_cosine(200, 200, 32) > null_cosine(50, 50, 32) > null_cosine(50, 50, 128) > 0
    assert null_cosine(50, 50, 32, signed=False) > null_cosine(50, 50, 32)
    assert null_cosine(50, 50, 32) == null_cosine(50, 50, 32)
