"""Small SAEs in other libraries' formats, from one pair of matrices with a row a latent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

D_IN, D_SAE = 6, 10


def directions(seed: int = 0, d_sae: int = D_SAE, d_in: int = D_IN) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder and encoder, `[d_sae, d_in]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d_sae, d_in, generator=generator), torch.randn(d_sae, d_in, generator=generator)


def _safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)


def _json(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))


def saelens(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor, *, silent: tuple[int, ...] = ()) -> Path:
    """`W_enc [d_in, d_sae]`, `W_dec [d_sae, d_in]`; sparsity is log10 of the frequency plus 1e-10."""
    d_sae, d_in = decoder.shape
    _safetensors(
        folder / "sae_weights.safetensors",
        {
            "W_enc": encoder.T,
            "W_dec": decoder,
            "b_enc": torch.zeros(d_sae),
            "b_dec": torch.zeros(d_in),
            "threshold": torch.ones(d_sae),
        },
    )
    _json(
        folder / "cfg.json", {"architecture": "jumprelu", "d_in": d_in, "d_sae": d_sae, "normalize_activations": "none"}
    )
    frequency = torch.full((d_sae,), 1e-6)
    frequency[list(silent)] = 0
    _safetensors(folder / "sparsity.safetensors", {"sparsity": torch.log10(frequency + 1e-10)})
    return folder


def sparsify(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor) -> Path:
    """`encoder.weight` and `W_dec`, both `[d_sae, d_in]`; `num_latents` 0 leaves the size to the factor."""
    d_sae, d_in = decoder.shape
    _safetensors(
        folder / "sae.safetensors",
        {"encoder.weight": encoder, "encoder.bias": torch.zeros(d_sae), "W_dec": decoder, "b_dec": torch.zeros(d_in)},
    )
    sizes = {"d_in": d_in, "num_latents": d_sae if d_sae % d_in else 0, "expansion_factor": d_sae // d_in}
    _json(folder / "cfg.json", {"activation": "topk", "k": 2, "normalize_decoder": True, **sizes})
    return folder


def dictionary_learning(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor) -> Path:
    """`encoder.weight [d_sae, d_in]`, `decoder.weight [d_in, d_sae]` (both nn.Linear)."""
    d_sae, d_in = decoder.shape
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "encoder.weight": encoder, "encoder.bias": torch.zeros(d_sae), "decoder.weight": decoder.T.clone(),
        "b_dec": torch.zeros(d_in), "k": torch.tensor(2), "threshold": torch.tensor(0.1),
    }  # fmt: skip
    torch.save(state, folder / "ae.pt")
    _json(
        folder / "config.json",
        {
            "trainer": {"dict_class": "AutoEncoderTopK", "activation_dim": d_in, "dict_size": d_sae, "k": 2},
            "buffer": {},
        },
    )
    return folder


def matryoshka(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor) -> Path:
    """dictionary_learning's Matryoshka: `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_in]`."""
    dictionary_learning(folder, decoder, encoder)
    torch.save({"W_enc": encoder.T.clone(), "W_dec": decoder, "group_sizes": torch.tensor([4, 6])}, folder / "ae.pt")
    return folder


def openmoss(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor) -> Path:
    """`W_E [d_model, d_sae]`, `W_D [d_sae, d_model]`."""
    d_sae, d_in = decoder.shape
    _safetensors(
        folder / "sae_weights.safetensors",
        {"W_E": encoder.T, "b_E": torch.zeros(d_sae), "W_D": decoder, "b_D": torch.zeros(d_in)},
    )
    _json(folder / "config.json", {"act_fn": "topk", "d_model": d_in, "expansion_factor": d_sae / d_in})
    return folder


def gemma_scope(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor) -> Path:
    """`params.npz` with `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_in]`."""
    d_sae, d_in = decoder.shape
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "params.npz",
        W_enc=encoder.T.numpy(),
        W_dec=decoder.numpy(),
        b_enc=np.zeros(d_sae),
        b_dec=np.zeros(d_in),
        threshold=np.ones(d_sae),
    )
    return folder


def llama_scope(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor) -> Path:
    """`hyperparams.json` and `checkpoints/final.safetensors` with `nn.Linear`'s names."""
    d_sae, d_in = decoder.shape
    tensors = {
        "encoder.weight": encoder, "encoder.bias": torch.zeros(d_sae), "decoder.weight": decoder.T,
        "decoder.bias": torch.zeros(d_in),
    }  # fmt: skip
    _safetensors(folder / "checkpoints" / "final.safetensors", tensors)
    norms = {"in": 3.0, "out": 3.0}
    sizes = {"d_model": d_in, "d_sae": d_sae, "jump_relu_threshold": 0.5, "dataset_average_activation_norm": norms}
    _json(folder / "hyperparams.json", {"act_fn": "jumprelu", "norm_activation": "dataset-wise", **sizes})
    return folder


def gemma_scope_2(folder: Path, decoder: torch.Tensor, encoder: torch.Tensor) -> Path:
    """`params.safetensors` with names in lower case."""
    d_sae, d_in = decoder.shape
    tensors = {
        "w_enc": encoder.T, "w_dec": decoder, "b_enc": torch.zeros(d_sae), "b_dec": torch.zeros(d_in),
        "threshold": torch.ones(d_sae),
    }  # fmt: skip
    _safetensors(folder / "params.safetensors", tensors)
    _json(folder / "config.json", {"architecture": "jump_relu", "type": "sae", "affine_connection": False})
    return folder


WRITERS = {
    "SAELens": saelens,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
    "OpenMOSS": openmoss,
    "Llama Scope": llama_scope,
    "Gemma Scope": gemma_scope,
    "Gemma Scope 2": gemma_scope_2,
}
