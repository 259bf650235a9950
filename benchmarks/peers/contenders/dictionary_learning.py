"""dictionary_learning: `TopKTrainer.update` and `JumpReluTrainer.update`."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import torch
from torch import Tensor

from contenders import Contender, Setting, Unavailable, per_latent_thresholds, settle_thresholds, shrink


def _without_its_buffer() -> None:
    """Lets the trainers be imported without the package's `__init__`, which imports its activation buffer and with it
    an old nnsight.
    """
    found = importlib.util.find_spec("dictionary_learning")
    if found is None or found.submodule_search_locations is None:
        raise Unavailable("dictionary_learning is not installed")
    package = types.ModuleType("dictionary_learning")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["dictionary_learning"] = package


def build(setting: Setting) -> Contender:
    """`architecture`: topk or jumprelu."""
    _without_its_buffer()
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    jumprelu = setting.options.get("architecture") == "jumprelu"
    common = {
        "steps": 100_000, "activation_dim": setting.d_in, "dict_size": setting.d_sae, "layer": 0, "lm_name": "none",
        "seed": 0, "device": str(setting.device),
    }  # fmt: skip
    torch.random.manual_seed(0)  # it draws its weights from the global generator; this process is only its own
    trainer: Any = (
        JumpReluTrainer(**common, target_l0=float(setting.k)) if jumprelu else TopKTrainer(**common, k=setting.k)
    )
    sae = trainer.ae
    if jumprelu:
        with torch.no_grad():
            pre = setting.batches[0] @ sae.W_enc + sae.b_enc
            sae.threshold.copy_(per_latent_thresholds(pre, setting.k).clamp_min(1e-3))
            del pre
    index = iter(range(10**9))

    def step(x: Tensor) -> None:
        trainer.update(next(index), x)

    @torch.no_grad()
    def prepare() -> None:
        if setting.dead.numel():
            shrink(sae.encoder.weight, setting.dead)
            sae.encoder.bias[setting.dead] = 0.0
            trainer.num_tokens_since_fired[setting.dead] = trainer.dead_feature_threshold

    @torch.no_grad()
    def before_turn() -> None:
        settle_thresholds(setting.batches[0] @ sae.W_enc + sae.b_enc, sae.threshold, setting.k)

    @torch.no_grad()
    def facts() -> dict[str, Any]:
        codes = sae.encode(setting.batches[0])
        return {"l0": float((codes != 0).sum() / codes.shape[0]), "dead": int(trainer.dead_features)}

    return Contender(step, prepare, before_turn if jumprelu else lambda: None, facts)
