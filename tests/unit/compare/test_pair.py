from __future__ import annotations

import json
import math
from pathlib import Path

import foreign_folders as made
import numpy as np
import our_folders as ours
import pytest
import torch

from saebench.api import SuiteError
from saebench.compare.pair import IDS, Comparison
from saebench.jobs import match_folders

DECODER, ENCODER = made.directions(0, 40, 16)
ORDER = torch.randperm(40, generator=torch.Generator().manual_seed(1))


def save(path: Path, decoder: torch.Tensor) -> Path:
    np.save(path, decoder.numpy())
    return path


def planted(folder: Path) -> Comparison:
    """The first 24 of B are latents of A in another order and length; the rest of both is apart."""
    other, other_encoder = made.directions(5, 40, 16)
    keep = torch.arange(40) < 24
    decoder, encoder = (
        torch.where(keep[:, None], 3 * mine[ORDER], theirs)
        for mine, theirs in ((DECODER, other), (ENCODER, other_encoder))
    )
    a = made.dictionary_learning(folder / "a", DECODER, ENCODER)
    b = made.saelens(folder / "b", decoder, encoder)
    return match_folders(a, b)


def test_a_planted_permutation_is_found_across_libraries(tmp_path: Path) -> None:
    comparison = planted(tmp_path)
    matching = comparison.scores.matching
    partner = dict(zip(matching.columns.tolist(), matching.rows.tolist(), strict=True))
    assert [partner[j] for j in range(24)] == ORDER[:24].tolist()
    assert comparison.scores.values["sfr"] == pytest.approx(comparison.n_shared / 40)
    assert comparison.n_shared >= 24
    assert matching.proven
    # both have alive latents known on one side only
    assert comparison.scores.values["sfr-alive"] is None
    assert comparison.reason("sfr-alive") == "it is not known which latents are dead"


def test_the_null_is_under_the_score_and_taken_out(tmp_path: Path) -> None:
    comparison = planted(tmp_path)
    for id in ("sfr", "matched-cosine", "mmcs"):
        value, level = comparison.scores.values[id], comparison.scores.null[id]
        assert value is not None
        assert level.low <= level.value <= level.high < value
        assert comparison.corrected(id) == pytest.approx((value - level.value) / (1 - level.value))
    assert comparison.null is not None
    assert sum(comparison.null.histogram) == pytest.approx(1)
    without = match_folders(tmp_path / "a", tmp_path / "b", null=False)
    assert (without.null, dict(without.scores.null)) == (None, {})
    assert without.scores.values == comparison.scores.values


def test_an_sae_with_itself_is_one_everywhere(tmp_path: Path) -> None:
    folder = ours.write_cell(tmp_path, 0, DECODER, ENCODER, dead=(3,))
    comparison = match_folders(folder, ours.record_of(tmp_path, 0))
    for id in ("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs"):
        assert comparison.scores.values[id] == pytest.approx(1)
        assert comparison.corrected(id) == pytest.approx(1)
    assert comparison.median_cosine == pytest.approx(1)
    assert (comparison.a.n_alive, comparison.notes) == (39, ())


def test_both_is_the_mean_of_the_two_cosines(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    noise = [0.6 * torch.randn(40, 16, generator=generator) for _ in range(2)]
    a = made.saelens(tmp_path / "a", DECODER, ENCODER)
    b = made.sparsify(tmp_path / "b", DECODER + noise[0], ENCODER + noise[1])
    comparison = match_folders(a, b, which="both", null=False)
    rows, columns = comparison.scores.matching.rows, comparison.scores.matching.columns

    def cosine(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        return torch.cosine_similarity(x[rows].double(), y[columns].double()).numpy()

    expected = (cosine(DECODER, DECODER + noise[0]) + cosine(ENCODER, ENCODER + noise[1])) / 2
    np.testing.assert_allclose(comparison.scores.matching.cosines, expected, atol=1e-6)
    assert "match by the decoder" in str(comparison.reason("strict-shared"))


def test_the_encoder_alone_can_be_matched(tmp_path: Path) -> None:
    a = made.saelens(tmp_path / "a", DECODER, ENCODER)
    b = made.gemma_scope(tmp_path / "b", torch.flip(DECODER, [0]), ENCODER)
    comparison = match_folders(a, b, which="encoder", null=False)
    assert comparison.scores.matching.columns.tolist() == list(range(40))
    assert comparison.scores.values["sfr"] == 1
    assert comparison.notes[-1].startswith("SFR and the others are of encoder directions")


def test_signs_count_unless_latents_are_signed_or_it_is_asked(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.npy", DECODER), save(tmp_path / "b.npy", -DECODER)
    assert match_folders(a, b, null=False).n_shared < 40
    absolute = match_folders(a, b, signed=False, null=False)
    assert (absolute.n_shared, absolute.matched_by) == (40, "|decoder cosine|")
    folders = [ours.write_expander(tmp_path / str(seed), seed, mask_seed=0) for seed in (0, 1)]
    comparison = match_folders(*folders, null=False)
    assert not comparison.signed
    assert not comparison.notes


def test_sizes_may_differ_and_the_threshold_is_free(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.npy", DECODER), save(tmp_path / "b.npy", DECODER[ORDER[:30]] + 0.05)
    high, low = (match_folders(a, b, threshold=threshold, null=False) for threshold in (0.9995, 0.5))
    assert high.n_shared < low.n_shared == 30
    assert low.scores.values["sfr"] == 1
    assert low.scores.coverage == (0.75, 1.0)
    assert len(low.scores.matching.rows) == 30


def test_what_a_reader_should_know_is_noted(tmp_path: Path) -> None:
    masks = [ours.write_expander(tmp_path / str(seed), seed, mask_seed=seed) for seed in (0, 1)]
    assert "different frozen supports" in match_folders(*masks, null=False).notes[0]
    same = [ours.write_expander(tmp_path / f"same{seed}", seed, mask_seed=0) for seed in (0, 1)]
    assert "same frozen support" in match_folders(*same).notes[0]
    sites = [ours.write_cell(tmp_path / site, 0, DECODER, ENCODER, site=site) for site in ("layers.1", "layers.2")]
    assert "A reads layers.1, B reads layers.2" in match_folders(*sites, null=False).notes[0]


def test_json_holds_finite_numbers_and_the_certificate_can_be_checked(tmp_path: Path) -> None:
    shown = json.loads(json.dumps(planted(tmp_path).to_json(), allow_nan=False))
    assert set(shown["scores"]) == set(IDS)
    for score in shown["scores"].values():
        assert (score["value"] is None) == isinstance(score["reason"], str)
    a, b = (torch.nn.functional.normalize(x.double()) for x in (DECODER, _decoder(tmp_path / "b")))
    cosines = a @ b.T
    pairs, certificate = shown["pairs"], shown["certificate"]
    found = cosines[pairs["a"], pairs["b"]]
    np.testing.assert_allclose(found.numpy(), pairs["cosine"], atol=1e-6)
    assert certificate["total"] == pytest.approx(math.fsum(pairs["cosine"]), abs=1e-6)
    u, v = torch.tensor(certificate["row_prices"]), torch.tensor(certificate["column_prices"])
    assert bool((u[:, None] + v[None] >= cosines - 1e-6).all())
    assert float(u.sum() + v.sum()) <= certificate["total"] * (1 + 1e-5)


def _decoder(folder: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(folder / "sae_weights.safetensors")["W_dec"]


def test_unfit_arguments(tmp_path: Path) -> None:
    a, turned = save(tmp_path / "a.npy", DECODER), save(tmp_path / "turned.npy", DECODER.T)
    for other, options, words in (
        (turned, {}, "seems to be stored with a column a latent: transpose it"),
        (save(tmp_path / "wide.npy", torch.ones(50, 17)), {}, "both must come from one site of one model."),
        (a, {"which": "encoder"}, "has no encoder directions"),
        (a, {"which": "middle"}, "allowed are decoder, encoder, both"),
        (a, {"threshold": 1.0}, "a cosine from 0 up to, not including, 1"),
    ):
        with pytest.raises(SuiteError) as raised:
            match_folders(a, other, **options)  # type: ignore[arg-type]
        assert words in str(raised.value)
