"""Directions of sparse autoencoders that other libraries wrote, always given `[d_sae, d]`: a row a latent.

Libraries differ in file names, tensor names and orientation; `formats` and the tables below hold all of it. Tensors
alone are read: no class of the other library is needed and no pickled code runs.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError
from saebench.base.text import one_line
from saebench.interop.formats import DECODERS, Format, locate, read_config
from saebench.interop.tensor_files import read_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Bools = NDArray[np.bool_]
    Tensors = Mapping[str, Floats]

# name -> True where the library stores a column a latent. nn.Linear's weight is [out, in].
ENCODERS = {"W_enc": True, "W_E": True, "w_enc": True, "encoder.weight": False, "encoder": False}
PER_LATENT = ("b_enc", "b_E", "encoder.bias", "threshold", "b_gate", "gate_bias", "latent_bias")
_SILENT = -9.5  # SAELens stores log10(frequency + 1e-10): a latent that never fired is at -10


@dataclass(frozen=True, eq=False)
class ForeignSae:
    """What matching needs of an SAE that another library wrote.

    Attributes:
        path: The folder or file that was read (the one hookpoint of a parent folder).
        library: Whose format it is; `file` for one file with a matrix.
        architecture: As its config names it; None where it says nothing.
        decoder: `[d_sae, d_out]`, float32 or float64; half precision is widened.
        encoder: `[d_sae, d_in]`; None where the file has none.
        dead: `[d_sae]` bool: silent in the window that the library kept; None where it kept none.
        notes: What a reader of the numbers should know.
    """

    path: Path
    library: str
    architecture: str | None
    decoder: Floats
    encoder: Floats | None
    dead: Bools | None
    notes: tuple[str, ...] = ()


def read_foreign(path: Path) -> ForeignSae:
    """The directions in another library's folder, in a parent of one such folder, or in one file with a matrix.

    Raises:
        SuiteError: Nothing there that can be read, several SAEs where one is needed, or tensors that do not fit the
            config.
    """
    path, format = locate(Path(path))
    return _read_file(path) if format is None else _read_folder(path, format)


def _read_folder(folder: Path, format: Format) -> ForeignSae:
    config = {} if format.config is None else read_config(folder / format.config)
    path = folder / format.weights
    tensors = read_tensors(path)
    decoder = _pick(tensors, DECODERS, path)
    if decoder is None:
        raise SuiteError(
            f"{path}: no decoder among its tensors ({_shapes(tensors)}). Known names: {', '.join(DECODERS)}."
        )
    encoder = _pick(tensors, ENCODERS, path)
    _check(decoder, encoder, _sizes(format, config), path, format.config or "")
    notes, dead = [], None
    if format.library == "SAELens":
        dead = _silent(folder / "sparsity.safetensors", len(decoder))
        if config.get("normalize_activations") == "covariance_whitening":
            notes.append("its directions are in whitened coordinates: match it only with SAEs of the same whitening")
    return ForeignSae(folder, format.library, _architecture(config), decoder, encoder, dead, tuple(notes))


def _read_file(path: Path) -> ForeignSae:
    tensors = read_tensors(path)
    notes: list[str] = []
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
    decoder = _pick(tensors, DECODERS, path)
    if decoder is None:
        if len(matrices) != 1:
            raise SuiteError(
                f"{path}: which of its tensors is the decoder? It has {_shapes(tensors)}. Name it "
                f"{' or '.join(DECODERS)}, or store it alone."
            )
        ((name, decoder),) = matrices.items()
        if name:
            notes.append(f"its only matrix, {one_line(name, 80)}, is taken as the decoder")
    per_latent = {len(tensors[name]) for name in PER_LATENT if name in tensors and tensors[name].ndim == 1}
    per_latent.discard(1)
    if per_latent and len(decoder) not in per_latent:
        raise SuiteError(
            f"{path}: the decoder has {len(decoder)} rows, its biases or thresholds are of {max(per_latent)} latents. "
            "Store it with a row a latent."
        )
    encoder = _pick(tensors, ENCODERS, path)
    if encoder is not None and len(encoder) != len(decoder) and encoder.shape[1] == len(decoder):
        encoder = np.ascontiguousarray(encoder.T)  # W_enc as saebench stores it: a row a latent already
    if encoder is not None and len(encoder) != len(decoder):
        raise SuiteError(
            f"{path}: {len(decoder)} latents in the decoder, {len(encoder)} in the encoder. Store both with a row a "
            "latent."
        )
    if encoder is not None and encoder.shape[0] == encoder.shape[1] and "W_enc" in tensors:
        notes.append("its W_enc is square: taken as [d_in, d_sae], as most libraries store it")
    if not per_latent and len(decoder) < decoder.shape[1]:
        notes.append(f"taken as {len(decoder)} latents of width {decoder.shape[1]}: rows are latents")
    return ForeignSae(path, "file", None, decoder, encoder, None, tuple(notes))


def _pick(tensors: Tensors, names: Mapping[str, bool], path: Path) -> Floats | None:
    """The first tensor of these names, with a row a latent."""
    for name, columns in names.items():
        if name in tensors:
            tensor = tensors[name]
            if tensor.ndim != 2:
                raise SuiteError(
                    f"{path}: {name} has shape {list(tensor.shape)}; only SAEs with one matrix [latents, width] can be "
                    "matched, not crosscoders."
                )
            return np.ascontiguousarray(tensor.T if columns else tensor)
    return None


def _shapes(tensors: Tensors) -> str:
    shown = [f"{one_line(name, 80) or 'an unnamed tensor'} {list(tensor.shape)}" for name, tensor in tensors.items()]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") if shown else "no floating tensor at all"


def _architecture(config: Mapping[str, Any]) -> str | None:
    trainer = config.get("trainer")
    inner = trainer.get("dict_class") if isinstance(trainer, Mapping) else None
    name = inner or config.get("architecture") or config.get("act_fn") or config.get("activation")
    return one_line(name, 80) if isinstance(name, str) else None


def _sizes(format: Format, config: Mapping[str, Any]) -> dict[str, int]:
    """`d_sae`, `d_in` and `d_out` as far as the config says them."""
    if format.library == "dictionary_learning":
        trainer = config.get("trainer")
        source: Mapping[str, Any] = trainer if isinstance(trainer, Mapping) else {}
        names = {"d_in": "activation_dim", "d_sae": "dict_size"}
    else:
        source = config
        names = {
            "SAELens": {"d_in": "d_in", "d_sae": "d_sae", "d_out": "d_out"},
            "sparsify": {"d_in": "d_in", "d_sae": "num_latents"},
            "OpenMOSS": {"d_in": "d_model", "d_sae": "d_sae"},
            "Llama Scope": {"d_in": "d_model", "d_sae": "d_sae"},
        }.get(format.library, {})
    sizes = {size: source[name] for size, name in names.items() if _is_size(source.get(name))}
    factor = source.get("expansion_factor")  # sparsify writes num_latents 0 where the factor decides
    if "d_sae" not in sizes and "d_in" in sizes and _is_size(factor, fraction=True):
        sizes["d_sae"] = int(sizes["d_in"] * factor)
    return sizes


def _is_size(value: object, *, fraction: bool = False) -> bool:
    """A number of latents or dimensions, or a factor of these: no truth value, no NaN, none of 400 digits."""
    kinds = (int, float) if fraction else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < 2**53


def _check(decoder: Floats, encoder: Floats | None, sizes: Mapping[str, int], path: Path, config: str) -> None:
    """The orientation is the expected one: shapes are those of the config, and both matrices have as many latents."""
    d_sae, d_in = sizes.get("d_sae", len(decoder)), sizes.get("d_in")
    d_out = sizes.get("d_out", d_in) or decoder.shape[1]
    if decoder.shape != (d_sae, d_out):
        raise SuiteError(
            f"{path}: its decoder is {len(decoder)} latents of width {decoder.shape[1]}, but {config} says {d_sae} of "
            f"width {d_out}. Restore the two files from one source."
        )
    expected = (len(decoder), encoder.shape[1] if encoder is not None and d_in is None else d_in)
    if encoder is not None and encoder.shape != expected:
        raise SuiteError(
            f"{path}: its encoder is {len(encoder)} latents of width {encoder.shape[1]}, expected {expected[0]} of "
            f"width {expected[1]}. Restore the file from its source."
        )


def _silent(path: Path, d_sae: int) -> Bools | None:
    """Which latents never fired in a SAELens `sparsity.safetensors`; None where it is absent or of another size."""
    if not path.is_file():
        return None
    frequency = read_tensors(path).get("sparsity")
    return None if frequency is None or frequency.shape != (d_sae,) else np.asarray(frequency < _SILENT)
