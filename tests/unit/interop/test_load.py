"""Codes and reconstructions of other libraries' SAEs, against their published formulas written out slowly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from saebench.api import SparseCodes, SuiteError
from saebench.compare.finished import as_module, load
from saebench.host import load_catalog
from saebench.interop.load import read_finished

CATALOG = load_catalog()
D_IN, D_SAE, K = 6, 12, 3
Slow = Callable[[Tensor], tuple[Tensor, Tensor]]


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape) * 31 + len(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


E, D = _random(D_SAE, D_IN), 1.7 * _random(D_SAE, D_IN, seed=1)
B, C, B_MAG = _random(D_SAE), _random(D_IN), _random(D_SAE, seed=5)
R, T = 0.3 * _random(D_SAE, seed=2), _random(D_SAE, seed=3).abs()
X = 2 * _random(50, D_IN, seed=4) + 0.5
NORMS = D.norm(dim=1)


def topk(pre: Tensor, k: int = K) -> Tensor:
    kept = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values)


def folder(path: Path, config: str | None, said: Mapping[str, Any], weights: str, tensors: dict[str, Tensor]) -> Path:
    (path / weights).parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if config:
        (path / config).write_text(json.dumps(said))
    if weights.endswith(".pt"):
        torch.save(tensors, path / weights)
    elif weights.endswith(".npz"):
        np.savez(path / weights, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        save_file(tensors, path / weights)
    return path


LENS = {"W_enc": E.T, "W_dec": D, "b_dec": C}


def saelens(path: Path, said: Mapping[str, Any], tensors: dict[str, Tensor]) -> Path:
    return folder(path, "cfg.json", {"d_in": D_IN, "d_sae": D_SAE, **said}, "sae_weights.safetensors", tensors)


def _new(**said: Any) -> dict[str, Any]:
    plain = {"normalize_activations": "none", "apply_b_dec_to_input": True}
    return {**plain, "metadata": {"hook_name": "blocks.2.hook_resid_pre", "prepend_bos": True}, **said}


def standard(path: Path) -> Slow:
    saelens(path, _new(architecture="standard"), {**LENS, "b_enc": B})
    return lambda x: (f := ((x - C) @ E.T + B).relu(), f @ D + C)


def standard_without_bias(path: Path) -> Slow:
    saelens(path, _new(architecture="standard", apply_b_dec_to_input=False), {**LENS, "b_enc": B})
    return lambda x: (f := (x @ E.T + B).relu(), f @ D + C)


def old_topk(path: Path) -> Slow:
    said = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "hook_point": "blocks.2.hook_resid_pre"}
    saelens(path, {**said, "normalize_activations": False}, {**LENS, "b_enc": B, "scaling_factor": R.exp()})
    return lambda x: (f := topk(((x - C) @ E.T + B).relu()), (f * R.exp()) @ D + C)


def rescaled_topk(path: Path) -> Slow:
    saelens(path, _new(architecture="topk", k=K, rescale_acts_by_decoder_norm=True), {**LENS, "b_enc": B})
    return lambda x: (f := topk((((x - C) @ E.T + B) * NORMS).relu()), f @ (D / NORMS[:, None]) + C)


def jumprelu(path: Path) -> Slow:
    saelens(path, _new(architecture="jumprelu", apply_b_dec_to_input=False), {**LENS, "b_enc": B, "threshold": T})
    return lambda x: (f := (pre := x @ E.T + B) * (pre > T), f @ D + C)


def log_jumprelu(path: Path) -> Slow:
    saelens(path, _new(architecture="jumprelu"), {**LENS, "b_enc": B, "log_threshold": T.log()})
    return lambda x: (f := (pre := (x - C) @ E.T + B) * (pre > T), f @ D + C)


def gated(path: Path) -> Slow:
    saelens(path, _new(architecture="gated"), {**LENS, "b_gate": B, "b_mag": B_MAG, "r_mag": R})

    def slow(x: Tensor) -> tuple[Tensor, Tensor]:
        u = (x - C) @ E.T
        f = (u + B > 0) * (u * R.exp() + B_MAG).relu()
        return f, f @ D + C

    return slow


def layer_norm(path: Path) -> Slow:
    saelens(path, _new(architecture="standard", normalize_activations="layer_norm"), {**LENS, "b_enc": B})

    def slow(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(1, keepdim=True)
        deviation = (x - mean).std(1, keepdim=True)
        f = (((x - mean) / (deviation + 1e-5) - C) @ E.T + B).relu()
        return f, (f @ D + C) * deviation + mean

    return slow


def constant_norm(path: Path) -> Slow:
    saelens(path, _new(architecture="standard", normalize_activations="constant_norm_rescale"), {**LENS, "b_enc": B})

    def slow(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = math.sqrt(D_IN) / x.norm(dim=1, keepdim=True)
        f = ((x * scale - C) @ E.T + B).relu()
        return f, (f @ D + C) / scale

    return slow


def unfolded_scale(path: Path) -> Slow:
    said = _new(architecture="jumprelu", normalize_activations="expected_average_only_in")
    saelens(path, said, {**LENS, "b_enc": B, "threshold": T})
    (path / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    return lambda x: (f := (pre := (x / 4 - C) @ E.T + B) * (pre > T), (f @ D + C) * 4)


SPARSIFY = {"encoder.weight": E, "encoder.bias": B, "W_dec": D, "b_dec": C}


def sparsify(path: Path) -> Slow:
    folder(path, "cfg.json", {"d_in": D_IN, "num_latents": D_SAE, "k": K}, "sae.safetensors", SPARSIFY)
    return lambda x: (f := topk(((x - C) @ E.T + B).relu()), f @ D + C)


def groupmax(path: Path) -> Slow:
    said = {"d_in": D_IN, "num_latents": D_SAE, "k": K, "activation": "groupmax"}
    folder(path, "cfg.json", said, "sae.safetensors", SPARSIFY)

    def slow(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = ((x - C) @ E.T + B).relu()
        f = torch.cat([part * (part == part.amax(1, keepdim=True)) for part in pre.split(D_SAE // K, dim=1)], 1)
        return f, f @ D + C

    return slow


def learnt(path: Path, kind: str, tensors: dict[str, Tensor]) -> Path:
    trainer = {"dict_class": kind, "activation_dim": D_IN, "dict_size": D_SAE}
    return folder(path, "config.json", {"trainer": trainer}, "ae.pt", tensors)


LINEAR = {"encoder.weight": E, "encoder.bias": B, "decoder.weight": D.T}


def auto_encoder(path: Path) -> Slow:
    learnt(path, "AutoEncoder", {**LINEAR, "bias": C})
    return lambda x: (f := ((x - C) @ E.T + B).relu() * NORMS, f @ (D / NORMS[:, None]) + C)


def auto_encoder_new(path: Path) -> Slow:
    learnt(path, "AutoEncoderNew", {**LINEAR, "decoder.bias": C})
    return lambda x: (f := (x @ E.T + B).relu(), f @ D + C)


def gated_auto_encoder(path: Path) -> Slow:
    tensors = {"encoder.weight": E, "decoder.weight": D.T, "decoder_bias": C}
    learnt(path, "GatedAutoEncoder", {**tensors, "r_mag": R, "gate_bias": B, "mag_bias": B_MAG})

    def slow(x: Tensor) -> tuple[Tensor, Tensor]:
        u = (x - C) @ E.T
        f = (u + B > 0) * (u * R.exp() + B_MAG).relu()
        return f, f @ D + C

    return slow


def jump_auto_encoder(path: Path) -> Slow:
    learnt(path, "JumpReluAutoEncoder", {"W_enc": E.T, "b_enc": B, "W_dec": D, "b_dec": C, "threshold": T})
    return lambda x: (f := (pre := x @ E.T + B) * (pre > T), f @ D + C)


def auto_encoder_topk(path: Path) -> Slow:
    learnt(path, "AutoEncoderTopK", {**LINEAR, "b_dec": C, "k": torch.tensor(K), "threshold": torch.tensor(9.0)})
    return lambda x: (f := topk(((x - C) @ E.T + B).relu()), f @ D + C)


def batch_topk(path: Path) -> Slow:
    learnt(path, "BatchTopKSAE", {**LINEAR, "b_dec": C, "k": torch.tensor(K), "threshold": torch.tensor(0.9)})
    return lambda x: (f := (pre := ((x - C) @ E.T + B).relu()) * (pre > torch.tensor(0.9)), f @ D + C)


def matryoshka(path: Path) -> Slow:
    more = {"k": torch.tensor(K), "threshold": torch.tensor(-1.0), "group_sizes": torch.tensor([4, 8])}
    learnt(path, "MatryoshkaBatchTopKSAE", {"W_enc": E.T, "b_enc": B, "W_dec": D, "b_dec": C, **more})
    return lambda x: (f := ((x - C) @ E.T + B).relu(), f @ D + C)


def _moss(path: Path, **said: Any) -> dict[str, Any]:
    return {"d_model": D_IN, "d_sae": D_SAE, "hook_point_in": "h", "hook_point_out": "h", **said}


def openmoss(path: Path) -> Slow:
    said = _moss(path, act_fn="jumprelu", sparsity_include_decoder_norm=True, norm_activation="dataset-wise",
                 dataset_average_activation_norm={"in": 4.0, "out": 4.0})  # fmt: skip
    tensors = {"W_E": E.T, "b_E": B, "W_D": D, "b_D": C, "activation_function.log_jumprelu_threshold": T.log()}
    folder(path, "config.json", said, "sae_weights.safetensors", tensors)
    s = math.sqrt(D_IN) / 4
    return lambda x: (f := (pre := s * x @ E.T + B) * (pre * NORMS > T), (f @ D + C) / s)


def llama_scope(path: Path) -> Slow:
    said = _moss(path, act_fn="jumprelu", jump_relu_threshold=0.4, norm_activation="dataset-wise",
                 dataset_average_activation_norm={"in": 4.0, "out": 4.0})  # fmt: skip
    tensors = {"encoder.weight": E, "encoder.bias": B, "decoder.weight": D.T, "decoder.bias": C}
    folder(path, "hyperparams.json", said, "checkpoints/final.safetensors", tensors)
    s = math.sqrt(D_IN) / 4
    return lambda x: (f := (pre := s * x @ E.T + B) * (pre > 0.4 * s), (f @ D + C) / s)


def gemma_scope(path: Path) -> Slow:
    tensors = {"W_enc": E.T, "W_dec": D, "b_enc": B, "b_dec": C, "threshold": T}
    folder(path, None, {}, "params.npz", tensors)
    return lambda x: (f := (pre := x @ E.T + B) * (pre > T), f @ D + C)


def gemma_scope_2(path: Path) -> Slow:
    tensors = {"w_enc": E.T, "w_dec": D, "b_enc": B, "b_dec": C, "threshold": T}
    folder(path, "config.json", {"architecture": "jump_relu", "type": "sae"}, "params.safetensors", tensors)
    return lambda x: (f := (pre := x @ E.T + B) * (pre > T), f @ D + C)


CASES = [
    standard, standard_without_bias, old_topk, rescaled_topk, jumprelu, log_jumprelu, gated, layer_norm, constant_norm,
    unfolded_scale, sparsify, groupmax, auto_encoder, auto_encoder_new, gated_auto_encoder, jump_auto_encoder,
    auto_encoder_topk, batch_topk, matryoshka, openmoss, llama_scope, gemma_scope, gemma_scope_2,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_codes_and_reconstructions_are_those_of_the_published_formula(
    case: Callable[[Path], Slow], tmp_path: Path
) -> None:
    f, x_hat = case(tmp_path)(X)
    assert 0 < (f != 0).double().mean() < 1
    sae: Any = as_module(read_finished(tmp_path), CATALOG)
    codes: SparseCodes = sae.encode(X)
    torch.testing.assert_close(codes.to_dense(), f, rtol=0, atol=1e-6)
    torch.testing.assert_close(sae.decode(codes), x_hat, rtol=0, atol=1e-6)


def test_it_says_where_the_sae_was_trained(tmp_path: Path) -> None:
    standard(tmp_path)
    found = read_finished(tmp_path)
    assert (found.library, found.hookpoint, found.prepend_bos) == ("SAELens", "blocks.2.hook_resid_pre", True)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"architecture": "temporal"}, "architecture is 'temporal'"),
        ({"architecture": "standard", "activation_fn": "tanh-relu"}, "activation function is 'tanh-relu'"),
        (
            {"architecture": "standard", "normalize_activations": "expected_average_only_in"},
            "factor that is not stored",
        ),
        ({"architecture": "standard", "normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"architecture": "topk"}, "no k"),
        ({"architecture": "topk", "k": 99}, "k is 99"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(said: dict[str, Any], why: str, tmp_path: Path) -> None:
    saelens(tmp_path, _new(**said), {**LENS, "b_enc": B})
    with pytest.raises(SuiteError, match=why):
        read_finished(tmp_path)


def test_a_tensor_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    saelens(tmp_path, _new(architecture="standard"), {**LENS, "b_enc": B, "W_skip": D + 1})
    with pytest.raises(SuiteError, match="W_skip is not known"):
        read_finished(tmp_path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    saelens(tmp_path, _new(architecture="standard"), {**LENS, "b_enc": B.index_fill(0, torch.tensor([1]), math.nan)})
    with pytest.raises(SuiteError, match="b_enc holds values that are not finite"):
        read_finished(tmp_path)


def test_a_transcoder_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, "cfg.json", {"d_in": D_IN, "k": K, "transcode": True}, "sae.safetensors", SPARSIFY)
    with pytest.raises(SuiteError, match="transcoder"):
        read_finished(tmp_path)


def test_a_nested_file_states_its_settings_or_they_are_asked_for(tmp_path: Path) -> None:
    tensors = {"W_enc": E.T.clone(), "W_dec": D, "b_enc": B, "b_dec": C}
    torch.save({"cfg": {"d_sae": D_SAE}, "state_dict": tensors}, tmp_path / "open.pt")
    with pytest.raises(SuiteError, match="how latents are chosen"):
        read_finished(tmp_path / "open.pt")
    with pytest.raises(SuiteError, match="decoder bias is subtracted"):
        read_finished(tmp_path / "open.pt", assume={"k": K})
    stated = read_finished(tmp_path / "open.pt", assume={"k": K, "apply_b_dec_to_input": True})
    torch.save({"cfg": {"k": K, "apply_b_dec_to_input": True}, "state_dict": tensors}, tmp_path / "said.pt")
    said = read_finished(tmp_path / "said.pt")
    assert said.digest == stated.digest and said.weights.k == K
    sae, _ = load(tmp_path / "said.pt", CATALOG)
    codes = sae.encode(X)  # type: ignore[operator]
    torch.testing.assert_close(codes.to_dense(), topk(((X - C) @ E.T + B).relu()))
