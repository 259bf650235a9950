from __future__ import annotations

import pytest

from saebench.leaderboard.names import model_name, natural
from saebench.leaderboard.numbers import count, fixed, half_width, rounded, scientific, size_text, with_interval


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.9123, 0.0041, "0.912 ± 0.004"),
        (0.5, 0.0001, "0.500 ± <0.001"),
        (0.5, None, "0.500"),
        (None, None, "–"),
        (-0.00001, None, "0.000"),
        (-0.35, 0.2, "−0.350 ± 0.200"),
    ],
)
def test_values_with_intervals(value: float | None, half: float | None, text: str) -> None:
    assert with_interval(value, half, 3) == text


def test_small_half_widths_never_read_as_zero() -> None:
    assert half_width(0.00049, 3) == "<0.001"
    assert half_width(0.0006, 3) == "0.001"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (512, "512"),
        (4096, "4,096"),
        (65_536, "65.5k"),
        (150_000, "150k"),
        (1_234_567, "1.23M"),
        (999_999, "1M"),
        (2e9, "2B"),
        (0, "0"),
        (None, "–"),
        (0.125, "0.125"),
    ],
)
def test_counts(number: float | None, text: str) -> None:
    assert count(number) == text


def test_flops() -> None:
    assert [scientific(value) for value in (None, 0, 7.5e10)] == ["–", "0", "7.50e+10"]
    assert fixed(1234.5, 0) == "1234"


def test_rounding_hides_the_last_bits_only() -> None:
    assert rounded({"a": [0.1 + 0.2, 1, True, None, "x"]}) == {"a": [0.3, 1, True, None, "x"]}


def test_names_read_as_people_count() -> None:
    assert sorted(["k16", "k8", "control", "k8b"], key=natural) == ["control", "k8", "k8b", "k16"]


def test_equal_seeds_have_no_width() -> None:
    assert half_width(0.0, 3) == "0"


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("docs-lm", "docs-lm"),
        ("org/model", "org/model"),
        ("/some/place/model-6m", "model-6m"),
        ("./here/m", "m"),
        ("C:\\models\\m", "m"),
    ],
)
def test_a_model_folder_is_called_by_its_last_part(id: str, name: str) -> None:
    assert model_name(id) == name


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1_048_576, "1.05 MB"), (999_990, "1 MB"), (2.5e12, "2.5 TB")]
)
def test_bytes(number: float, text: str) -> None:
    assert size_text(number) == text
