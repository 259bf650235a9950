from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import foreign_folders as made
import numpy as np
import our_folders as ours
import pytest

from saebench.compare.pair import Comparison
from saebench.compare.terminal import certificate, page
from saebench.jobs import match_folders
from saebench.matching import match

DECODER, ENCODER = made.directions(0, 40, 16)
OTHER, OTHER_ENCODER = made.directions(1, 40, 16)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    ours.write_cell(tmp_path, 0, DECODER, ENCODER)
    ours.write_cell(tmp_path, 1, DECODER + 0.8 * OTHER, ENCODER + 0.5 * OTHER_ENCODER, dead=(0, 1))
    return match_folders(ours.record_of(tmp_path, 0), ours.record_of(tmp_path, 1))


def test_the_page_fits_and_says_what_the_numbers_are(comparison: Comparison) -> None:
    lines = page(comparison).splitlines()
    assert max(len(line) for line in lines if not line.startswith("   ")) <= 80  # but for paths
    text = " ".join(" ".join(lines).split())
    assert lines[0] == "A  topk checkpoint, docs k2-s0: 40 latents of width 16, 40 alive"
    assert "B topk checkpoint, docs k2-s1: 40 latents of width 16, 38 alive" in text
    for id, name in (
        ("sfr", "SFR (pairs > 0.7)"),
        ("sfr-alive", "SFR among alive latents"),
        ("mmcs", "MMCS (best of any)"),
    ):
        (row,) = (line for line in lines if line.startswith(name))
        shown = row[len(name) :].split()
        assert shown[0] == f"{comparison.scores.values[id]:.3f}"
        assert shown[1] == f"{comparison.scores.null[id].value:.3f}"
        assert shown[-1] == f"{comparison.corrected(id):.3f}"
    n = comparison.n_shared
    assert f"{n} of 40 pairs have a cosine > 0.7: {100 * n / 40:.1f} % of A's 40" in text
    assert "exact: proven gap" in text
    assert "10 draws" in text
    assert "no interval over seeds" in text


def test_what_is_missing_has_its_reason(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DECODER.numpy())
    np.save(tmp_path / "b.npy", OTHER.numpy())
    text = " ".join(page(match_folders(tmp_path / "a.npy", tmp_path / "b.npy", null=False)).split())
    assert "no sfr-alive: it is not known which latents are dead" in text
    assert "no strict-shared: the encoder directions are not known" in text
    assert "no null was asked for" in text
    assert "A file: 40 latents of width 16 " in text


def test_certificates_in_words() -> None:
    found = match(DECODER, OTHER)
    stopped = replace(
        found,
        proven=False,
        relative_gap=0.0123,
        facts={"method": "sparse", "solver": "scipy", "rounds": 2, "stopped": "time"},
    )
    assert certificate(stopped) == (
        "NOT proven optimal: the best total is at most 1.2 % higher; stopped by the time limit (2 rounds, sparse, "
        "scipy)"
    )
    assert "nothing is known" in certificate(replace(stopped, relative_gap=float("inf")))
    exact = replace(stopped, proven=True, relative_gap=3e-16, facts={"solver": "scipy", "rounds": 1})
    assert certificate(exact) == "exact: proven gap 3e-16 of the total (1 round, scipy)"
    assert certificate(replace(exact, relative_gap=0.0)).startswith("exact: proven gap 0 of")


def test_an_unproven_matching_beside_the_main_one_is_told(comparison: Comparison) -> None:
    scores = replace(comparison.scores, proven=False, gap=0.004)
    assert "NOT proven optimal: the matching of alive latents or of encoders, by up to 0.4 %" in " ".join(
        page(replace(comparison, scores=scores)).split()
    )
