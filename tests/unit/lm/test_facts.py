"""Models at plan time: ids, digests, hookpoints, errors."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import PretrainedConfig

from saebench.api import SuiteError
from saebench.lm.book import ModelBook
from saebench.lm.facts import describe_model
from saebench.lm.folder.locate import model_folder
from saebench.lm.folder.model_config import cache_values
from saebench.lm.model import LanguageModel


@pytest.mark.parametrize(
    ("name", "path", "n_layers"),
    [("gpt2", "transformer.h", 3), ("neox", "gpt_neox.layers", 3), ("bert", "encoder.layer", 2)],
)
def test_blocks_of_every_family_have_short_names(name, path, n_layers, request):
    facts = describe_model(str(request.getfixturevalue(name)))
    assert facts.n_layers == n_layers
    hook = facts.hookpoint("layers.1")
    assert (hook.path, hook.name, hook.d) == (f"{path}.1", "layers.1", 16)
    assert facts.hookpoint(f"{path}.1").path == hook.path
    assert facts.context_limit == 64
    assert facts.causal == (name != "bert")
    assert facts.d_model == 16


def test_parts_of_a_block_can_be_named_from_the_short_form(gpt2):
    facts = describe_model(str(gpt2))
    assert facts.hookpoint("layers.2.mlp").path == "transformer.h.2.mlp"
    assert facts.hookpoint("transformer.h.0.mlp.c_fc").d == 64


def test_meta_facts_equal_those_of_the_loaded_model(gpt2):
    facts = describe_model(str(gpt2))
    model = LanguageModel.load(str(gpt2))
    assert facts.n_parameters == sum(p.numel() for p in model.model.parameters())
    assert model.facts == facts


def test_flops_count_weights_up_to_the_hookpoint(gpt2):
    facts = describe_model(str(gpt2))
    block = 12 * 16 * 16  # attention 4 d^2, mlp 8 d^2
    assert facts.forward_flops_per_token("transformer.h.0") == 2 * block
    assert facts.forward_flops_per_token("transformer.h.2") == 2 * 3 * block
    assert facts.forward_flops_per_token() == 2 * (3 * block + 16 * 40)


def test_values_of_the_key_value_cache_are_counted(gpt2):
    """Two vectors a layer; fewer where heads share keys and values, as a real cache of it shows."""
    assert describe_model(str(gpt2)).cache_values == 2 * 3 * 16
    model = LanguageModel.load("docs-lm")
    ids = torch.full((1, 5), model.bos_id)
    kept = model.model(input_ids=ids, use_cache=True).past_key_values
    values = sum(part.numel() for layer in kept.layers for part in (layer.keys, layer.values))
    assert values == 5 * model.facts.cache_values


@pytest.mark.parametrize(
    ("config", "values"),
    [
        ({"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32}, 2 * 3 * 2 * 32),
        ({"num_attention_heads": 8, "num_key_value_heads": 2}, 2 * 3 * 2 * 8),
        ({"num_attention_heads": 8}, 2 * 3 * 64),
        ({}, 2 * 3 * 64),
    ],
)
def test_heads_that_share_keys_keep_fewer_values(config, values):
    assert cache_values(PretrainedConfig(**config), 3, 64) == values


@pytest.mark.parametrize("name", ["layers.3", "layers.-1", "layers.99.mlp"])
def test_a_block_that_does_not_exist_names_the_range(name, gpt2):
    with pytest.raises(SuiteError, match=r"3 blocks are layers\.0 to layers\.2"):
        describe_model(str(gpt2)).hookpoint(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transformer.h.1.mpl", "transformer.h.1.mlp"),
        ("layer.1", "layers.1"),
        ("transformer.h", "container that is never called itself"),
        ("nonsense", "layers.0 to layers.2"),
    ],
)
def test_other_mistakes_are_helped(name, message, gpt2):
    with pytest.raises(SuiteError, match=message.replace(".", r"\.")):
        describe_model(str(gpt2)).hookpoint(name)


def test_digest_depends_on_weights_and_config_only(gpt2, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(gpt2, copy)
    (copy / "README.md").write_text("text")
    assert describe_model(str(copy)).digest == describe_model(str(gpt2)).digest
    config = json.loads((copy / "config.json").read_text())
    config["attn_pdrop"] = 0.5
    (copy / "config.json").write_text(json.dumps(config))
    assert describe_model(str(copy)).digest != describe_model(str(gpt2)).digest


@pytest.mark.parametrize(
    ("gone", "message"),
    [("config.json", "config.json missing"), ("model.safetensors", "weights"), ("tokenizer.json", "a tokenizer")],
)
def test_a_folder_that_is_no_model_says_what_is_missing(gone, message, gpt2, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(gpt2, copy)
    (copy / gone).unlink()
    with pytest.raises(SuiteError, match=message) as caught:
        describe_model(str(copy))
    assert "\n" not in str(caught.value)


def test_broken_config_and_damaged_weights_are_suite_errors(gpt2, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(gpt2, copy)
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(SuiteError, match=r"weights cannot be loaded, model\.safetensors is damaged"):
        describe_model(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(SuiteError, match=r"config\.json cannot be read"):
        describe_model(str(copy))


def test_weights_that_miss_tensors_are_refused(gpt2, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(gpt2, copy)
    tensors = load_file(copy / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if ".h.2.mlp" not in name}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SuiteError, match="not in its weight files"):
        LanguageModel.load(str(copy))


def test_missing_folders_name_near_ones(gpt2):
    with pytest.raises(SuiteError, match=f"Did you mean '{gpt2}'"):
        model_folder(str(gpt2) + "x")


def test_a_file_is_no_model(gpt2):
    with pytest.raises(SuiteError, match="is a file"):
        model_folder(str(gpt2 / "config.json"))


def test_a_hub_id_offline_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SuiteError, match="hf download someone/model --local-dir"):
        model_folder("someone/model", "abc")
    with pytest.raises(SuiteError, match="Did you mean the built-in 'docs-lm'"):
        model_folder("docs_lm")


class Plugins:
    """A catalog whose plugin loads one model itself."""

    def __init__(self, model):
        self.loaded = model

    def load_model(self, ref):
        return self.loaded if ref["id"] == "mine" else None


def test_a_plugin_may_load_a_model_of_its_own(neox):
    known = LanguageModel.load(str(neox))
    known.model.tokenizer = known.tokenizer
    catalog = Plugins(known.model)
    facts = ModelBook(catalog).model("mine")
    assert facts.hookpoint("layers.0").d == 16
    assert LanguageModel.load("mine", catalog=catalog).facts.digest == facts.digest


@pytest.mark.parametrize(("name", "d", "n_layers"), [("stories260k", 64, 5), ("prose-6m", 256, 6)])
def test_real_models(name, d, n_layers, material):
    facts = describe_model(str(material / "models" / name))
    assert (facts.hookpoint("layers.2").d, facts.n_layers, facts.context_limit, facts.causal) == (
        d,
        n_layers,
        512,
        True,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("docs-lm" * 1000, "cannot be looked for"), ("~nobody-has-this-home/model", "there is no such folder")],
)
def test_a_name_that_cannot_be_looked_for_is_refused(name, message):
    with pytest.raises(SuiteError, match=message):
        model_folder(name)
