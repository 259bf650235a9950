"""What transformers cannot read is told by file, key and what was found there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from saebench.api import SuiteError
from saebench.lm.facts import describe_model


@pytest.fixture
def folder(neox, tmp_path) -> Path:
    return Path(shutil.copytree(neox, tmp_path / "model"))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        describe_model(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_act", "nonsense", "config.json has hidden_act: 'nonsense', which makes no model .KeyError"),
        ("hidden_act", ["gelu"], r"config.json has hidden_act: \['gelu'\], which"),
        ("hidden_size", -16, "config.json has hidden_size: -16, which"),
        ("num_hidden_layers", -1, "config.json has num_hidden_layers: -1; allowed are 1 to 4096"),
        ("num_hidden_layers", 0, "config.json has num_hidden_layers: 0; allowed"),
        ("num_hidden_layers", 10**4000, "config.json has num_hidden_layers: a giant number; allowed"),
        ("vocab_size", 0, "config.json has vocab_size: 0; allowed"),
        ("vocab_size", 10**12, "config.json has vocab_size: 1000000000000; allowed"),
        ("rope_parameters", {"rope_type": "zz"}, "config.json has rope_parameters.rope_type: 'zz', which"),
        ("model_type", ["llama"], r"config.json has model_type: \['llama'\]; expected the name"),
    ],
)
def test_a_value_of_the_config_that_makes_no_model_is_named_with_its_key(folder, key, value, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    refused(folder, message)


@pytest.mark.parametrize("text", ["[]", "null", '{"model_type":', '"llama"', "[" * 100_000])
def test_a_config_that_is_no_object_is_told_so(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "config.json (holds no JSON object|cannot be read)")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", "{}", "tokenizer.json has no key 'added_tokens'"),
        ("tokenizer.json", '{"added_tokens": []}', "tokenizer.json has no key 'model'"),
        (
            "tokenizer.json",
            '{"added_tokens": "x", "model": {}}',
            "tokenizer.json added_tokens: found a text, expected a list",
        ),
        (
            "tokenizer.json",
            '{"added_tokens": [], "model": 1}',
            "tokenizer.json model: found a number, expected an object",
        ),
        ("tokenizer.json", "[]", "tokenizer.json holds a list, expected an object"),
        ("tokenizer.json", '{"added_tokens": [', "tokenizer.json is no JSON"),
        ("tokenizer_config.json", "null", "tokenizer_config.json holds null, expected an object"),
        (
            "tokenizer_config.json",
            '{"bos_token": 3}',
            "its tokenizer .tokenizer.json, tokenizer_config.json. cannot be loaded",
        ),
        ("special_tokens_map.json", "[1]", "special_tokens_map.json holds a list"),
    ],
)
def test_a_tokenizer_file_of_another_shape_is_told_so(folder, name, text, message):
    (folder / name).write_text(text)
    refused(folder, message)
