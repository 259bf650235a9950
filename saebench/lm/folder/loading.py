"""From a model folder to a model: on the meta device, where a forward costs nothing, or with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from saebench.api.errors import SuiteError
from saebench.cells.load import PLAIN, LoadSettings
from saebench.lm import hf
from saebench.lm.folder.blame import config_fault
from saebench.lm.folder.model_config import Kind, no_model, reason
from saebench.lm.folder.tensor_fit import refuse_untied
from saebench.lm.folder.weights import WeightFiles, load_tensors
from saebench.lm.trace import Trace, trace

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def traced(model: torch.nn.Module, kind: Kind, model_id: str) -> Trace:
    """What runs in a forward of a model with its weights.

    Raises:
        SuiteError: The forward fails.
    """
    try:
        return trace(model, causal=kind != "encoder")
    except Exception as error:
        raise SuiteError(
            f"model '{model_id}': a forward of it fails ({reason(error)}). "
            "Give the config.json that belongs to its weights."
        ) from error


def traced_on_stand_ins(config: Any, kind: Kind, model_id: str, *, trust: bool = False) -> Trace:
    """What runs in a forward of a model whose weights are not here, and which cannot run on the meta device.

    Its tensors say that they are on the CPU and hold nothing: rotary tables of older releases of transformers ask for a
    device that torch knows.

    Raises:
        SuiteError: The forward needs values.
    """
    try:
        with FakeTensorMode():
            model: torch.nn.Module = hf.new_model(config, decoder=kind == "decoder", trust=trust).eval()
            return trace(model, causal=kind != "encoder")
    except Exception as error:
        raise SuiteError(
            f"model '{model_id}': its weights are not here, and without them a forward of it fails ({reason(error)}). "
            "Give the whole folder."
        ) from error


def build(config: Any, kind: Kind, model_id: str, *, trust: bool = False) -> torch.nn.Module:
    """The model on the meta device: names and shapes, no values. `trust`: with the code that its folder brought along.

    Raises:
        SuiteError: The config does not make a model.
    """
    try:
        with torch.device("meta"):
            model: torch.nn.Module = hf.new_model(config, decoder=kind == "decoder", trust=trust).eval()
    except Exception as error:
        raise SuiteError(
            f"model '{model_id}': {no_model(config_fault(Path(getattr(config, 'name_or_path', ''))), error)}"
        ) from error
    return model


def load_weights(
    config: Any,
    kind: Kind,
    weights: WeightFiles,
    model_id: str,
    load: LoadSettings = PLAIN,
    device: str | torch.device = "cpu",
) -> torch.nn.Module:
    """The model in eval mode, on the CPU unless `load` places it. An adapter in the folder is never applied.

    Every tensor is mapped from its file and turned into the model's dtype by itself: no copy of the whole model in
    another precision is ever made.

    Raises:
        SuiteError: Weights are damaged, or two tables that the config ties differ.
    """
    # only tensors are handed on: from a folder transformers would apply an adapter, and pick files of its own
    model_class = type(build(config, kind, model_id, trust=load.trust_remote_code))
    dtype = DTYPES[load.dtype]
    try:
        tensors = load_tensors(weights)
        model, _ = hf.from_tensors(
            model_class, config, dict(tensors), ignore_mismatched_sizes=False, dtype=dtype, **_settings(load, device)
        )
    except Exception as error:
        advice = "Copy or download the folder again."
        if load.is_placed:
            advice = "Give a device_map whose devices are here and hold it, or leave it out."
        raise SuiteError(f"model '{model_id}': its weights cannot be loaded ({reason(error)}). {advice}") from error
    refuse_untied(model, config, tensors, model_id)
    module: torch.nn.Module = model.eval().requires_grad_(False)
    return module


def _settings(load: LoadSettings, device: str | torch.device) -> dict[str, Any]:
    """What transformers is told beyond the dtype."""
    found: dict[str, Any] = {}
    if load.attention is not None:
        found["attn_implementation"] = load.attention
    if load.quantisation is not None:
        found["quantization_config"] = hf.quantisation(load.quantisation, DTYPES[load.dtype])
    if load.is_placed:
        placed = dict(load.device_map) if isinstance(load.device_map, tuple) else load.device_map
        found["device_map"] = placed or {"": torch.device(device)}
    return found
