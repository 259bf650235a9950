"""From a model folder to a model: on the meta device, where a forward costs nothing, or with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from saebench.api.errors import SuiteError
from saebench.lm import hf
from saebench.lm.folder.blame import config_fault
from saebench.lm.folder.model_config import Kind, no_model, reason
from saebench.lm.folder.tensor_fit import refuse_untied
from saebench.lm.folder.weights import WeightFiles, load_tensors
from saebench.lm.trace import Trace, trace


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


def build(config: Any, kind: Kind, model_id: str) -> torch.nn.Module:
    """The model on the meta device: names and shapes, no values.

    Raises:
        SuiteError: The config does not make a model.
    """
    try:
        with torch.device("meta"):
            model: torch.nn.Module = hf.new_model(config, decoder=kind == "decoder").eval()
    except Exception as error:
        raise SuiteError(
            f"model '{model_id}': {no_model(config_fault(Path(getattr(config, 'name_or_path', ''))), error)}"
        ) from error
    return model


def load_weights(config: Any, kind: Kind, weights: WeightFiles, model_id: str) -> torch.nn.Module:
    """The model in float32 and eval mode, on the CPU. An adapter in the folder is never applied.

    Raises:
        SuiteError: Weights are damaged, or two tables that the config ties differ.
    """
    # only tensors are handed on: from a folder transformers would apply an adapter, and pick files of its own
    model_class = type(build(config, kind, model_id))
    try:
        tensors = load_tensors(weights)
        model, _ = hf.from_tensors(model_class, config, dict(tensors), ignore_mismatched_sizes=False)
    except Exception as error:
        raise SuiteError(
            f"model '{model_id}': its weights cannot be loaded ({reason(error)}). Copy or download the folder again."
        ) from error
    refuse_untied(model, config, tensors, model_id)
    module: torch.nn.Module = model.eval().requires_grad_(False)
    return module
