from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import foreign_folders as made
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from saebench.api import SuiteError
from saebench.interop.formats import FORMATS
from saebench.interop.read import ForeignSae, read_foreign

DECODER, ENCODER = made.directions()


def holds(found: ForeignSae, decoder: torch.Tensor = DECODER, encoder: torch.Tensor | None = ENCODER) -> None:
    np.testing.assert_array_equal(found.decoder, decoder.numpy())
    assert (found.encoder is None) == (encoder is None)
    if encoder is not None:
        np.testing.assert_array_equal(found.encoder, encoder.numpy())


@pytest.mark.parametrize("library", made.WRITERS)
@pytest.mark.parametrize("shape", [(10, 6), (12, 6), (6, 6), (4, 6)], ids=str)
def test_every_library_is_read_with_a_row_a_latent(library: str, shape: tuple[int, int], tmp_path: Path) -> None:
    decoder, encoder = made.directions(1, *shape)
    folder = made.WRITERS[library](tmp_path / "sae", decoder, encoder)
    found = read_foreign(folder)
    assert (found.library, found.path) == (library, folder)
    holds(found, decoder, encoder)


def test_every_format_is_tried_here() -> None:
    assert {format.library for format in FORMATS} == set(made.WRITERS)


def test_architectures_stand_where_the_configs_name_them(tmp_path: Path) -> None:
    names = {
        library: read_foreign(write(tmp_path / library, DECODER, ENCODER)).architecture
        for library, write in made.WRITERS.items()
    }
    assert names == {
        "SAELens": "jumprelu",
        "sparsify": "topk",
        "dictionary_learning": "AutoEncoderTopK",
        "OpenMOSS": "topk",
        "Llama Scope": "jumprelu",
        "Gemma Scope": None,
        "Gemma Scope 2": "jump_relu",
    }


def test_matryoshka_stores_its_encoder_the_other_way(tmp_path: Path) -> None:
    holds(read_foreign(made.matryoshka(tmp_path, DECODER, ENCODER)))


def test_a_file_inside_a_folder_means_the_folder(tmp_path: Path) -> None:
    folder = made.saelens(tmp_path, DECODER, ENCODER)
    for name in ("sae_weights.safetensors", "cfg.json"):
        found = read_foreign(folder / name)
        assert (found.library, found.path) == ("SAELens", folder)
        holds(found)


def test_half_precision_is_widened_and_double_kept(tmp_path: Path) -> None:
    save_file({"W_dec": DECODER.bfloat16()}, tmp_path / "half.safetensors")
    save_file({"W_dec": DECODER.double()}, tmp_path / "double.safetensors")
    half, double = (
        read_foreign(tmp_path / "half.safetensors").decoder,
        read_foreign(tmp_path / "double.safetensors").decoder,
    )
    assert (half.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(half, DECODER.bfloat16().float().numpy())


def test_silent_latents_of_saelens_are_dead(tmp_path: Path) -> None:
    found = read_foreign(made.saelens(tmp_path, DECODER, ENCODER, silent=(2, 7)))
    assert found.dead is not None
    assert np.flatnonzero(found.dead).tolist() == [2, 7]
    (tmp_path / "sparsity.safetensors").unlink()
    assert read_foreign(tmp_path).dead is None


def test_whitened_coordinates_are_told(tmp_path: Path) -> None:
    made.saelens(tmp_path, DECODER, ENCODER)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"normalize_activations": "covariance_whitening"}))
    (note,) = read_foreign(tmp_path).notes
    assert "whitened coordinates" in note


def test_the_one_hookpoint_of_a_parent_folder_is_taken(tmp_path: Path) -> None:
    made.sparsify(tmp_path / "layers.3", DECODER, ENCODER)
    (tmp_path / "logs").mkdir()
    found = read_foreign(tmp_path)
    assert found.path == tmp_path / "layers.3"
    holds(found)
    made.sparsify(tmp_path / "layers.10", DECODER, ENCODER)
    with pytest.raises(SuiteError, match=r"holds 2 SAEs: layers\.10, layers\.3\. Give one of these folders"):
        read_foreign(tmp_path)


def save_npy(path: Path) -> None:
    np.save(path, DECODER.numpy())


def save_npz(path: Path) -> None:
    np.savez(path, decoder=DECODER.numpy(), step=np.array(3))


def save_pt(path: Path) -> None:
    torch.save(
        {
            "state_dict": {"decoder.weight": DECODER.T.clone()},
        },
        path,
    )


def save_tensor(path: Path) -> None:
    torch.save(DECODER, path)


def save_st(path: Path) -> None:
    save_file({"W_dec": DECODER, "steps": torch.tensor(3)}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("x.npy", save_npy), ("x.npz", save_npz), ("x.pt", save_pt), ("y.pt", save_tensor), ("x.safetensors", save_st)],
)
def test_one_file_with_a_matrix(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / name)
    found = read_foreign(tmp_path / name)
    assert (found.library, found.notes) == ("file", ())
    holds(found, encoder=None)


def test_a_file_may_store_its_encoder_either_way(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for stored in (ENCODER, ENCODER.T.contiguous()):
        save_file({"W_dec": DECODER, "W_enc": stored, "b_enc": torch.zeros(len(DECODER))}, path)
        holds(read_foreign(path))
    square_decoder, square_encoder = made.directions(2, 6, 6)
    save_file({"W_dec": square_decoder, "W_enc": square_encoder.T.contiguous()}, path)
    found = read_foreign(path)
    holds(found, square_decoder, square_encoder)
    assert "W_enc is square" in found.notes[0]


def test_fewer_latents_than_dimensions_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DECODER[:3].numpy())
    (note,) = read_foreign(tmp_path / "x.npy").notes
    assert note == "taken as 3 latents of width 6: rows are latents"


def test_biases_reveal_a_transposed_decoder(tmp_path: Path) -> None:
    save_file({"W_dec": DECODER.T.contiguous(), "b_enc": torch.zeros(10)}, tmp_path / "x.safetensors")
    with pytest.raises(SuiteError, match=r"decoder has 6 rows, its biases or thresholds are of 10 latents"):
        read_foreign(tmp_path / "x.safetensors")


class Code:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (exec, ("raise SystemError('a pickle ran code')",))


def test_pickled_code_never_runs(tmp_path: Path) -> None:
    for name, save in (
        ("x.pt", lambda path: torch.save({"W_dec": Code()}, path)),
        ("y.pt", lambda path: path.write_bytes(pickle.dumps(Code()))),
    ):
        save(tmp_path / name)
        with pytest.raises(SuiteError, match="never pickled code"):
            read_foreign(tmp_path / name)


def cut_weights(folder: Path) -> None:
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def other_size(folder: Path) -> None:
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"d_sae": 12}))


def transposed(folder: Path) -> None:
    tensors = load_file(folder / "sae_weights.safetensors")
    save_file(
        {name: t.T.contiguous() if t.ndim == 2 else t for name, t in tensors.items()},
        folder / "sae_weights.safetensors",
    )


def other_encoder(folder: Path) -> None:
    tensors = load_file(folder / "sae_weights.safetensors")
    save_file({**tensors, "W_enc": torch.zeros(6, 9)}, folder / "sae_weights.safetensors")


def no_decoder(folder: Path) -> None:
    save_file({"gate": torch.zeros(3, 4)}, folder / "sae_weights.safetensors")


def crosscoder(folder: Path) -> None:
    save_file({"W_dec": torch.zeros(10, 2, 6)}, folder / "sae_weights.safetensors")


def no_json(folder: Path) -> None:
    (folder / "cfg.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_weights, r"sae_weights\.safetensors: not readable as safetensors"),
        (other_size, r"decoder is 10 latents of width 6, but cfg\.json says 12 of width 6"),
        (transposed, r"decoder is 6 latents of width 10, but cfg\.json says 10 of width 6"),
        (other_encoder, r"encoder is 9 latents of width 6, expected 10 of width 6"),
        (no_decoder, r"no decoder among its tensors \(gate \[3, 4\]\)\. Known names: W_dec"),
        (crosscoder, r"W_dec has shape \[10, 2, 6\].*not crosscoders"),
        (no_json, r"cfg\.json: not readable as JSON"),
    ],
)
def test_spoilt_folders(spoil: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    folder = made.saelens(tmp_path, DECODER, ENCODER)
    spoil(folder)
    with pytest.raises(SuiteError, match=words) as raised:
        read_foreign(folder)
    assert "\n" not in str(raised.value)


def test_what_is_not_known_is_told_with_all_that_is(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    for path, words in (
        (tmp_path, "no SAE is known by these files: model.bin"),
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "model.bin", "tensors are read from .safetensors, .npz, .npy, .pt files"),
    ):
        with pytest.raises(SuiteError, match=re.escape(words)) as raised:
            read_foreign(path)
        assert "\n" not in str(raised.value)
        if path.suffix != ".bin":
            assert all(format.weights in str(raised.value) for format in FORMATS)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 3)), b=np.zeros((2, 3)))
    with pytest.raises(SuiteError, match=r"which of its tensors is the decoder\? It has a \[2, 3\], b \[2, 3\]"):
        read_foreign(tmp_path / "two.npz")


def test_importing_it_loads_no_torch() -> None:
    code = "import sys; import saebench.interop.read; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("expansion_factor", "NaN"),
        ("expansion_factor", "Infinity"),
        ("expansion_factor", "1e400"),
        ("expansion_factor", "true"),
        ("expansion_factor", "9" * 400),
        ("d_in", "true"),
        ("d_in", "-4"),
        ("d_in", '"4"'),
        ("num_latents", "9" * 400),
    ],
)
def test_a_size_that_is_none_is_as_good_as_absent(tmp_path: Path, key: str, text: str) -> None:
    from safetensors.numpy import save_file

    config = {"d_in": "4", "num_latents": "0", "expansion_factor": "3", key: text}
    (tmp_path / "cfg.json").write_text("{" + ", ".join(f'"{name}": {value}' for name, value in config.items()) + "}")
    save_file({"W_dec": np.ones((12, 4), np.float32)}, tmp_path / "sae.safetensors")
    assert read_foreign(tmp_path).decoder.shape == (12, 4)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"d_in": ' + "9" * 5000 + "}", '{"d_in": "\\ud800'])
def test_a_config_that_no_parser_takes(tmp_path: Path, text: str) -> None:
    (tmp_path / "cfg.json").write_text(text)
    (tmp_path / "sae.safetensors").write_bytes(b"")
    with pytest.raises(SuiteError, match=r"cfg.json: not readable as JSON") as caught:
        read_foreign(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("W_dec.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (75, 1 << 20)})
        for _ in range(75):
            file.write(bytes(4 << 20))
    with pytest.raises(SuiteError, match="unpack to 314,572,"):
        read_foreign(path)


def test_names_of_others_can_be_printed_and_written(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "cfg.json").write_text('{"d_in": 4, "d_sae": 12, "architecture": "\\udcff\\u001b[2J' + "x" * 500 + '"}')
    save_file({"W_dec": np.ones((12, 4), np.float32)}, tmp_path / "sae_weights.safetensors")
    name = read_foreign(tmp_path).architecture
    assert name is not None
    assert name.isprintable()
    assert len(name) <= 80


def test_what_a_library_says_of_a_file_is_cut_short(tmp_path: Path) -> None:
    header = b'{"W_dec": {"dtype": "' + b"X" * 5000 + b'", "shape": [1, 4], "data_offsets": [0, 16]}}'
    (tmp_path / "cfg.json").write_text("{}")
    (tmp_path / "sae.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(SuiteError, match=r"not readable as safetensors") as caught:
        read_foreign(tmp_path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
