from __future__ import annotations

import json
import re
from pathlib import Path

import foreign_folders as made
import numpy as np
import pytest
import torch

from saebench.api import SuiteError
from saebench.compare.pair import Comparison
from saebench.compare.picture import _chart, best_block, save_picture
from saebench.jobs import match_folders

DECODER, _ = made.directions(0, 90, 16)
ORDER = torch.randperm(90, generator=torch.Generator().manual_seed(1))


def compare(folder: Path, decoder: torch.Tensor, **options: object) -> Comparison:
    np.save(folder / "a.npy", DECODER.numpy())
    np.save(folder / "b.npy", decoder.numpy())
    return match_folders(folder / "a.npy", folder / "b.npy", **options)


def test_the_block_holds_the_best_pairs_on_its_diagonal(tmp_path: Path) -> None:
    noise = torch.linspace(0, 3, 90)[:, None] * made.directions(7, 90, 16)[0]
    comparison = compare(tmp_path, (DECODER + noise)[ORDER], null=False)
    rows, columns, cosines = best_block(comparison)
    assert cosines.shape == (64, 64)
    matching = comparison.scores.matching
    partner = dict(zip(matching.rows.tolist(), matching.columns.tolist(), strict=True))
    assert [partner[i] for i in rows.tolist()] == columns.tolist()
    np.testing.assert_allclose(np.sort(np.diag(cosines)), np.sort(matching.cosines)[-64:], atol=1e-6)


def test_relatives_stand_side_by_side(tmp_path: Path) -> None:
    families = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)).repeat(
        15, 1
    )  # latent i is of family i % 6
    near = families + 0.1 * DECODER
    np.save(tmp_path / "a.npy", near.numpy())
    rows, _, _ = best_block(match_folders(tmp_path / "a.npy", tmp_path / "a.npy", null=False))
    assert int((np.diff(rows % 6) != 0).sum()) == 5


def test_shares_of_pairs_and_of_chance_each_sum_to_one(tmp_path: Path) -> None:
    chart = _chart(compare(tmp_path, DECODER[ORDER])).to_dict()
    bars = chart["hconcat"][0]["layer"][0]["data"]["values"]
    for what in ("matched pairs", "random directions"):
        assert sum(bar["share"] for bar in bars if bar["what"] == what) == pytest.approx(1)
    assert {bar["low"] for bar in bars if bar["what"] == "matched pairs"} == {0.98}
    without = _chart(compare(tmp_path, DECODER[ORDER], null=False)).to_dict()
    assert {bar["what"] for bar in without["hconcat"][0]["layer"][0]["data"]["values"]} == {"matched pairs"}


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_latents_can_be_drawn(n: int, tmp_path: Path) -> None:
    comparison = compare(tmp_path, DECODER[:n], signed=False, null=False)
    save_picture(comparison, tmp_path / "few.svg")
    assert f"The {n} best-matched pairs" in (tmp_path / "few.svg").read_text()


def test_files_of_every_kind(tmp_path: Path) -> None:
    comparison = compare(tmp_path, DECODER[ORDER])
    for name in ("x.svg", "x.png", "x.html"):
        save_picture(comparison, tmp_path / name)
    svg = (tmp_path / "x.svg").read_text()
    assert svg.startswith("<svg")
    for words in ("random directions", "SFR counts &gt; 0.7", "best-matched pairs", "A: file"):
        assert words in svg
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    html = (tmp_path / "x.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", html.split("<script>")[0])
    spec = re.search(r"^const spec = (\{.*\}), themes = ", html, re.MULTILINE)
    assert spec
    assert json.loads(spec[1])["hconcat"]
    save_picture(comparison, tmp_path / "y.svg")
    assert (tmp_path / "y.svg").read_bytes() == (tmp_path / "x.svg").read_bytes()


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"a picture ends in \.svg, \.png, \.html"):
        save_picture(compare(tmp_path, DECODER, null=False), tmp_path / "x.jpg")
