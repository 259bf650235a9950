from __future__ import annotations

import json
from pathlib import Path

import foreign_folders as made
import numpy as np
import our_folders as ours
import pytest

from saebench.api import SuiteError
from saebench.compare.sides import read_side
from saebench.host import load_catalog

DECODER, ENCODER = made.directions()


def test_a_checkpoint_and_its_record_are_one(tmp_path: Path) -> None:
    folder = ours.write_cell(tmp_path, 3, DECODER, ENCODER, dead=(1, 4))
    catalog = load_catalog()
    by_folder, by_record = (read_side(path, catalog=catalog) for path in (folder, ours.record_of(tmp_path, 3)))
    for file in ("sae.json", "sae.safetensors"):
        assert read_side(folder / file, catalog=catalog).path == folder
    for side in (by_folder, by_record):
        assert (side.kind, side.d_sae, side.n_alive, side.site) == ("topk checkpoint", 10, 8, "layers.1")
        np.testing.assert_allclose(side.decoder, DECODER.numpy())
        assert side.encoder is not None
        np.testing.assert_allclose(side.encoder, ENCODER.numpy(), rtol=1e-6)
        assert side.dead is not None
        assert np.flatnonzero(side.dead).tolist() == [1, 4]
    assert (by_folder.detail, by_record.detail) == ("k 2", "docs k2-s3")


def test_tags_and_supports_are_read(tmp_path: Path) -> None:
    catalog = load_catalog()
    side = read_side(ours.write_expander(tmp_path, 0, mask_seed=0), catalog=catalog)
    other = read_side(ours.write_expander(tmp_path, 1, mask_seed=1), catalog=catalog)
    assert side.signed_latents
    assert side.support != other.support
    grouped = ours.write_cell(tmp_path, 2, DECODER, ENCODER, tags=("grouped_latents",))
    assert "come in groups" in read_side(grouped, catalog=catalog).notes[0]


@pytest.mark.parametrize("library", made.WRITERS)
def test_other_libraries_folders_are_named(library: str, tmp_path: Path) -> None:
    side = read_side(made.WRITERS[library](tmp_path, DECODER, ENCODER), catalog=load_catalog())
    assert side.kind.startswith(f"{library} folder")
    np.testing.assert_array_equal(side.decoder, DECODER.numpy())
    assert side.n_alive == (10 if library == "SAELens" else None)
    json.dumps(side.to_json(), allow_nan=False)


def test_what_is_no_sae_is_refused_in_a_line(tmp_path: Path) -> None:
    root = tmp_path / "run"
    folder = ours.write_cell(root, 0, DECODER, ENCODER)
    (root / "plan.json").write_text("{}")
    lost = ours.record_of(root, 0)
    (tmp_path / "alone.json").write_text(lost.read_text())
    (tmp_path / "other.json").write_text("{}")
    folder.rename(root / "elsewhere")
    catalog = load_catalog()
    for path, words in (
        (root, "a run folder, with many SAEs"),
        (lost, "is not there (only the records are here)"),
        (tmp_path / "alone.json", "outside of a records/ folder"),
        (tmp_path / "other.json", "not the record of a cell"),
        (tmp_path / "nowhere", "no such file or folder"),
    ):
        with pytest.raises(SuiteError) as raised:
            read_side(path, catalog=catalog)
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)
