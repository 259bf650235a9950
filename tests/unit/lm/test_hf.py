"""Calls to transformers: in one place, and right whatever the version calls the cache."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import saebench
import saebench_plugins
from saebench.lm import hf
from saebench.lm.hf import cache_argument, cache_of, cache_switch
from saebench.lm.model import LanguageModel
from saebench.lm.sampling import sample
from saebench.testing import make_tokenizer


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_one_module_calls_transformers() -> None:
    roots = [Path(str(saebench.__file__)).parent, *map(Path, saebench_plugins.__path__)]
    files = [path for root in roots for path in root.rglob("*.py")]
    found = [path.name for path in files if any(name.split(".")[0] == "transformers" for name in imported(path))]
    assert found == ["hf.py"]


class Newer(nn.Module):
    def forward(self, input_ids: Any, cache: Any = None, use_cache: bool = True) -> None: ...


class Older(nn.Module):
    def forward(self, input_ids: Any, past_key_values: Any = None, use_cache: bool = True) -> None: ...


class Without(nn.Module):
    def forward(self, input_ids: Any) -> None: ...


@pytest.mark.parametrize(("model", "name"), [(Newer(), "cache"), (Older(), "past_key_values")])
def test_the_cache_goes_by_the_name_of_the_forward(model: nn.Module, name: str) -> None:
    output = SimpleNamespace(**{name: "kept"})
    assert cache_of(model, output) == "kept"
    assert cache_argument(model, "kept") == {name: "kept", "use_cache": True}
    assert cache_switch(model, False) == {"use_cache": False}


class OneWay(nn.Module):
    def forward(self, input_ids: Any, state: Any = None, use_cache: bool = True) -> None: ...


@pytest.mark.parametrize(("model", "switch"), [(Without(), {}), (OneWay(), {"use_cache": False})])
def test_a_model_that_takes_no_cache_is_asked_for_none(model: nn.Module, switch: dict[str, bool]) -> None:
    assert cache_of(model, SimpleNamespace(past_key_values="kept", cache="kept")) is None
    assert cache_switch(model, True) == switch


def test_rwkv_samples_with_a_cache_what_it_samples_without(tmp_path: Path) -> None:
    """It makes a state that no argument hands on, and its first token alone was wrong where it was asked for one."""
    config = hf.new_config("rwkv", vocab_size=300, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.new_model(config, decoder=True).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    lm = LanguageModel.load(str(tmp_path))
    ids = [
        sample(lm, 8, 6, temperature=1.0, top_p=1.0, generator=torch.Generator().manual_seed(0), use_cache=use)
        for use in (True, False)
    ]
    assert torch.equal(*ids)
