"""Whether every tensor of the weight files finds its place in the model.

The names and shapes in the headers of the files go through the same loading as the weights do later.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from saebench.api.errors import SuiteError
from saebench.lm import hf
from saebench.lm.folder.model_config import Kind, reason
from saebench.lm.folder.weights import Stored, WeightFiles
from saebench.lm.trace import find_blocks

_HEADS = re.compile(
    r"(score|classifier|qa_outputs|v_head|value_head|reward_head|rm_head|multiple_choice_head|pooler)\."
)
"""Layers of another task, which lie in the same file as a language model and change nothing in it."""
_OUTPUT_TABLE = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""What weights are stored as; all else is quantised, or no weight."""


@dataclass(frozen=True)
class Loading:
    """How the tensors of the weight files fit the model.

    Attributes:
        model_class: Name of the class that reads them.
        kind: What it is.
        unused: Tensors that it does not take, though they lie where text passes: numbers may be wrong.
        aside: Parts it does not take and no number depends on: heads of another task, parts for pictures.
        random: Parts that the files lack and no number depends on.
    """

    model_class: str
    kind: Kind
    unused: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    random: tuple[str, ...] = ()


def fit(
    model: torch.nn.Module, config: Any, kind: Kind, stored: Mapping[str, Stored], weights: WeightFiles, model_id: str
) -> Loading:
    """How the stored tensors would load into the model.

    Raises:
        SuiteError: Some that it needs are missing or of another shape, or they are quantised and the config does not
            say how.
    """
    headers = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta").as_subclass(_Header)
        for name, tensor in stored.items()
    }
    try:
        fitted, info = hf.fit_headers(type(model), config, headers)
    except Exception as error:
        raise SuiteError(f"model '{model_id}': its weights cannot be loaded ({reason(error)}).") from error
    if getattr(fitted, "hf_quantizer", None) is None:
        _refuse_quantised(stored, model_id)
    name = type(model).__name__
    mismatched = sorted(tuple(item) for item in info["mismatched_keys"])
    if mismatched:
        key, there, expected = mismatched[0]
        raise SuiteError(
            f"model '{model_id}': {len(mismatched)} tensors of {weights.names} have another shape than config.json "
            f"says, first '{key}': {list(there)} in the file, "
            f"{list(expected)} by the config. Give the config that belongs to these weights."
        )
    missing = set(info["missing_keys"])
    head = _output_names(model)
    if kind == "decoder" and missing and missing <= head:
        return Loading(name, "headless")
    silent = _silent_parts(model)
    random = {key for key in missing if key.startswith(silent) or (kind != "decoder" and "pooler" in key.split("."))}
    if missing - random:
        lost = sorted(missing - random)
        raise SuiteError(
            f"model '{model_id}': {len(lost)} tensors that {name} needs are not in its weight files "
            f"({weights.names}), first '{lost[0]}'. "
            f"{_layers_hint(model, stored)}{_other_names(lost, info['unexpected_keys'])}"
        )
    unexpected = {key for key in info["unexpected_keys"] if not _is_buffer(key, stored.get(key))}
    aside = {key for key in unexpected if key.startswith(silent) or _is_head(key, model, kind, stored)}
    return Loading(name, kind, tuple(sorted(unexpected - aside)), _parts(aside), _parts(random))


def refuse_unused(loading: Loading, weights: WeightFiles | None, allowed: Sequence[str], model_id: str) -> None:
    """Refuses a model that leaves tensors of its files unused, but for those that a pattern of `allowed` matches.

    Raises:
        SuiteError: With the first of them and how to insist.
    """
    left = [name for name in loading.unused if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    if left and weights is not None:
        scales = any(re.search(r"(scale|scale_inv|zero_point|qzeros|qweight|absmax|g_idx)$", name) for name in left)
        cause = (
            "These are parts of a quantised model whose config.json does not say how. "
            "Give its original weights, or its whole config"
            if scales
            else "Give the config.json that belongs to these weights"
        )
        raise SuiteError(
            f"model '{model_id}': {len(left)} of the tensors in {weights.names} are not used by {loading.model_class} "
            f"as config.json describes it, first '{left[0]}', so it is "
            f"not the model that was saved. {cause}, or insist: load: {{allow_unused: {_patterns(left)}}}."
        )


class _Header(torch.Tensor):
    """A tensor of which only the header was read: it loads as itself wherever it is sent."""

    def to(self, *_args: Any, dtype: torch.dtype | None = None, **_kwargs: Any) -> torch.Tensor:
        return torch.empty(self.shape, dtype=dtype or self.dtype, device="meta")


def _refuse_quantised(stored: Mapping[str, Stored], model_id: str) -> None:
    for name, tensor in stored.items():
        is_weight = name.endswith("weight") or (name.endswith("bias") and len(tensor.shape) == 1)
        if is_weight and tensor.dtype not in _PLAIN:
            raise SuiteError(
                f"model '{model_id}': '{name}' is stored as {tensor.kind}, a quantised form or none of a weight, and "
                "config.json has no quantization_config by "
                "which transformers reads it. Give its original weights, or its whole config."
            )


def refuse_untied(model: torch.nn.Module, config: Any, tensors: Mapping[str, torch.Tensor], model_id: str) -> None:
    """Refuses a config that ties input and output tables beside weights with two different ones."""
    tied = getattr(hf.text_config(config), "tie_word_embeddings", False) or getattr(
        config, "tie_word_embeddings", False
    )
    tables = [tensor for name, tensor in tensors.items() if _OUTPUT_TABLE.search(name) or name in _input_names(model)]
    if tied and len(tables) == 2 and not torch.equal(*tables):
        raise SuiteError(
            f"model '{model_id}': config.json ties the input and the output embedding (tie_word_embeddings), but the "
            "weight files hold two different tables. "
            "Set it to false, or give the config that belongs to these weights."
        )


def _table_names(model: torch.nn.Module, module: Any) -> set[str]:
    return {
        f"{path}.{name}"
        for path, other in model.named_modules(remove_duplicate=False)
        if other is module
        for name, _ in other.named_parameters(recurse=False)
    }


def _output_names(model: torch.nn.Module) -> set[str]:
    """Names of the parameters that turn the last hidden state into logits."""
    find = getattr(model, "get_output_embeddings", None)
    module = find() if find is not None else None
    return _table_names(model, module) if module is not None else set()


def _input_names(model: Any) -> set[str]:
    return _table_names(model, model.get_input_embeddings())


def _silent_parts(model: torch.nn.Module) -> tuple[str, ...]:
    """Prefixes of the parts for pictures and sound, which no text passes."""
    names = ("vision", "visual", "image", "audio", "multi_modal_projector", "mm_projector", "speech")
    return tuple(
        f"{path}."
        for path, _ in model.named_modules()
        if path and any(path.rpartition(".")[2].startswith(name) for name in names)
    ) or ("\0",)


def _is_head(name: str, model: torch.nn.Module, kind: Kind, stored: Mapping[str, Stored]) -> bool:
    """Whether a tensor that is not taken belongs to a head of another task: behind everything that is read."""
    base = f"{getattr(model, 'base_model_prefix', '')}."
    outside = not name.startswith(base) and any(key.startswith(base) for key in stored)
    return (kind == "encoder" and outside) or _HEADS.match(name) is not None


def _is_buffer(name: str, tensor: Stored | None) -> bool:
    """Tables that older versions saved and that follow from the config: causal masks, frequencies, position ids."""
    last = name.rpartition(".")[2]
    if re.search(r"(^|\.)attn\.bias$|(^|\.)attention\.bias$", name):
        return tensor is None or len(tensor.shape) == 4
    return last in {"masked_bias", "inv_freq", "position_ids", "cos_cached", "sin_cached", "embed_positions"}


def _parts(names: Iterable[str]) -> tuple[str, ...]:
    """Modules instead of their tensors: `score`, `model.vision_tower`."""
    prefixes = {".".join(name.split(".")[: 2 if name.startswith(("model.", "transformer.")) else 1]) for name in names}
    return tuple(sorted(prefixes))


def _patterns(names: Sequence[str]) -> str:
    """As a YAML list: one pattern a block, or the name itself, and few of them."""
    found = dict.fromkeys(re.sub(r"^(.*?\.\d+)\..*", r"\1.*", name) for name in names)
    if len(found) > 4:
        found = dict.fromkeys(f"{name.partition('.')[0]}.*" if "." in name else name for name in names)
    return f"[{', '.join(repr(pattern) for pattern in found)}]"


def _other_names(lost: Sequence[str], unexpected: Iterable[str]) -> str:
    """What to do about tensors that are not there; where the file has them by other names, that."""
    found = sorted(unexpected)
    if any(re.search(r"\.(base_layer|lora_[AB])\.", name) for name in found):
        return "The file holds an adapter that is not merged. Merge it (`merge_and_unload`) and save the model again."
    wrapped = next(((one, name) for one in lost for name in found if name.endswith(f".{one}")), None)
    if wrapped is not None:
        one, name = wrapped
        return (
            f"The file calls {'it' if one == lost[0] else repr(one)} '{name}': "
            "unwrap the model and save it again with `save_pretrained`."
        )
    if found and len(found) == len(lost):
        return (
            f"The file has as many of other names, first '{found[0]}'. "
            "Name them as transformers does, or give the config that belongs to them."
        )
    return "Copy or download the folder again."


def _layers_hint(model: torch.nn.Module, stored: Mapping[str, Stored]) -> str:
    """Says so where config and file disagree about the number of blocks."""
    found = find_blocks(model)
    if found is None:
        return ""
    inside = re.compile(rf"(?:.*\.)?{re.escape(found[0].rpartition('.')[2])}\.(\d+)\.")
    numbers = [int(match[1]) for name in stored if (match := inside.match(name))]
    expected, there = len(found[1]), max(numbers, default=-1) + 1
    return f"config.json says {expected} blocks, the file has {there}. " if numbers and expected != there else ""
