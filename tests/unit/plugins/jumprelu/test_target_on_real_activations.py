"""JumpReLU reaches its target L0 in a short run on a real language model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saebench.api import Site
from saebench.api.specs import resolve
from saebench_plugins.jumprelu.plugin import saebench_architectures

(SPEC,) = saebench_architectures()
CONTEXT = 128


@pytest.fixture(scope="module")
def activations(material: Path) -> Tensor:
    """About 40,000 tokens after layer 2 of stories260k, mean square 1 a coordinate."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = material / "models" / "stories260k"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids: list[int] = []
    with gzip.open(material / "corpora" / "tinystories" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            ids += tokenizer(json.loads(line)["text"][:1000], add_special_tokens=False)["input_ids"]
            if len(ids) >= 40_000:
                break
    n = len(ids) // (CONTEXT - 1)
    sequences = torch.tensor(ids[: n * (CONTEXT - 1)]).view(n, -1)
    sequences = torch.cat([torch.full((n, 1), tokenizer.bos_token_id), sequences], 1)
    model.model.layers = model.model.layers[:3]
    model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        parts = [model.model(part).last_hidden_state[:, 1:] for part in sequences.split(32)]
    x = torch.cat(parts).flatten(0, 1)
    return x / x.pow(2).mean().sqrt()


def test_l0_lands_within_a_fifth_of_the_target(bench: Any, activations: Tensor) -> None:
    target = 8.0
    train, held_out = activations[:-4096], activations[-4096:]
    width = train.shape[1]
    sae = resolve(SPEC.build)(
        SPEC.config(d_sae=512, target_l0=target), site=Site(width, width), generator=bench.generator()
    )
    sae = bench.train(bench.start(sae, train), train, lr=8e-3, epochs=1)
    fvu, l0 = bench.score(sae, held_out)
    assert abs(l0 / target - 1) < 0.2
    assert fvu < 0.3
