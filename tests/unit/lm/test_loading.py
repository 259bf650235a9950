"""A model folder is loaded whole or refused: what is left unused, lacking, quantised, cut short, applied in silence."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from saebench.api import SuiteError
from saebench.lm.book import ModelBook
from saebench.lm.facts import describe_model
from saebench.lm.model import LanguageModel

WEIGHTS = "model.safetensors"


def edited(folder: Path, **changes) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def rewritten(folder: Path, change, name: str = WEIGHTS) -> Path:
    """The folder with its tensors put through `change`."""
    save_file(change(load_file(folder / WEIGHTS)), folder / name, metadata={"format": "pt"})
    return folder


@pytest.fixture
def folder(neox, tmp_path) -> Path:
    """A copy to spoil: GPT-NeoX, 3 blocks, untied."""
    return Path(shutil.copytree(neox, tmp_path / "model"))


@pytest.fixture
def tied(gpt2, tmp_path) -> Path:
    """A copy to spoil: GPT-2, 3 blocks, tied."""
    return Path(shutil.copytree(gpt2, tmp_path / "tied"))


def some_ids(lm: LanguageModel) -> torch.Tensor:
    ids = torch.randint(3, lm.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = lm.bos_id
    return ids


def ce(path) -> torch.Tensor:
    lm = LanguageModel.load(str(path))
    return lm.splicer(lm.facts.hookpoint("layers.0").path).clean(some_ids(lm)).ce


def refused(folder: Path, message: str, allowed: tuple[str, ...] = ()) -> None:
    """At plan time as well as in a run, with one line."""
    for act in (
        lambda: describe_model(str(folder)).check_loading(allowed),
        lambda: LanguageModel.load(str(folder), allow_unused=allowed),
    ):
        with pytest.raises(SuiteError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)


# Tensors that find no place


def test_a_config_of_fewer_blocks_than_the_file_is_refused_and_can_be_insisted_on(folder):
    edited(folder, num_hidden_layers=2)
    insist = r"not used by GPTNeoXForCausalLM .*load: \{allow_unused: \['gpt_neox\.layers\.2\.\*'\]\}"
    refused(folder, insist)
    refused(folder, "gpt_neox.layers.2", ("gpt_neox.layers.1.*", "gpt_neox.layers.2.mlp.*"))
    facts = describe_model(str(folder))
    facts.check_loading(("gpt_neox.layers.2.*",))
    assert "tensors of model.safetensors are not used, as load.allow_unused allows: gpt_neox.layers.2" in facts.notes[0]
    assert LanguageModel.load(str(folder), allow_unused=("gpt_neox.layers.2.*",)).facts.n_layers == 2


def test_a_config_of_more_blocks_than_the_file_is_refused_with_both_numbers(folder):
    refused(edited(folder, num_hidden_layers=4), "not in its weight files.*says 4 blocks, the file has 3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt_neox.layers.0.attention.query_key_value.weight_scale", "parts of a quantised model"),
        ("gpt_neox.layers.0.mlp.dense_h_to_4h.weight_scale_inv", "parts of a quantised model"),
        ("gpt_neox.layers.0.extra_norm.weight", "Give the config.json that belongs"),
        ("mtp.layers.0.weight", r"allow_unused: \['mtp\.layers\.0\.\*'\]"),
        ("lm_head.bias", r"allow_unused: \['lm_head\.bias'\]"),
    ],
)
def test_tensors_of_no_use_are_refused_by_name(name, message, folder):
    refused(rewritten(folder, lambda tensors: tensors | {name: torch.ones(16)}), message)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_without_a_config_are_refused(dtype, folder):
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    refused(rewritten(folder, lambda tensors: tensors | {name: tensors[name].to(dtype)}), "a quantised form")


def test_quantised_weights_whose_way_transformers_does_not_know_are_refused(folder):
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    rewritten(folder, lambda tensors: tensors | {name: tensors[name].to(torch.int8)})
    refused(
        edited(folder, quantization_config={"quant_method": "nobody-knows"}),
        "a quantised form|weights cannot be loaded",
    )


def test_other_weights_that_a_config_names_are_refused(folder):
    refused(edited(folder, transformers_weights="other.safetensors"), "names 'other.safetensors' as its weights")


def test_a_model_type_that_transformers_does_not_know_is_the_cause_that_is_named(folder):
    edited(folder, model_type="mine", auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    refused(folder, r"config\.json cannot be used \(ValueError: .*model type `mine`.*never code that a model brings")


def test_a_sentencepiece_file_needs_its_package(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    import importlib.util

    if importlib.util.find_spec("sentencepiece") is not None:
        pytest.skip("the package is installed here")
    refused(folder, "it needs the package sentencepiece: pip install sentencepiece")


def test_a_quantisation_that_needs_a_package_names_it(folder):
    edited(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refused(folder, "weights cannot be loaded.*pip install|weights cannot be loaded.*requires")


def test_other_shapes_than_the_config_says_are_refused_with_both(folder):
    refused(
        edited(folder, intermediate_size=48),
        r"another shape than config\.json says.*\[16, 32\] in the file, \[16, 48\] by the config",
    )


def test_tables_that_follow_from_the_config_need_no_permission_and_make_no_noise(folder, tied):
    old = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
    }
    before = ce(folder)
    assert torch.equal(ce(rewritten(folder, lambda tensors: tensors | old)), before)
    facts = describe_model(str(folder))
    facts.check_loading()
    assert facts.notes == ()
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64),
        "lm_head.weight": load_file(tied / WEIGHTS)["transformer.wte.weight"].clone(),
    }
    before = ce(tied)
    assert torch.equal(ce(rewritten(tied, lambda tensors: tensors | masks)), before)
    assert describe_model(str(tied)).notes == ()


def test_a_tied_config_beside_two_different_tables_is_refused(tied):
    rewritten(tied, lambda tensors: tensors | {"lm_head.weight": torch.ones(40, 16)})
    with pytest.raises(SuiteError, match="ties the input and the output embedding"):
        LanguageModel.load(str(tied))
    with pytest.raises(SuiteError, match="ties the input and the output embedding"):
        ModelBook().prove(str(tied), None, "transformer.h.1")


def test_half_precision_weights_are_read_as_they_are(folder):
    rewritten(folder, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    lm = LanguageModel.load(str(folder))
    loaded = {name.replace("embed_out", "lm_head"): value for name, value in lm.model.state_dict().items()}
    for name, tensor in load_file(folder / WEIGHTS).items():
        found = loaded[name if name in loaded else name.replace("embed_out", "lm_head")]
        assert found.dtype is torch.float32
        assert torch.equal(found, tensor.float())


# Heads and kinds


def test_the_class_that_a_checkpoint_was_saved_from_makes_no_encoder_of_a_decoder(folder):
    before = ce(folder)
    assert torch.equal(ce(edited(folder, architectures=["GPTNeoXForTokenClassification"])), before)
    rewritten(folder, lambda tensors: tensors | {"score.weight": torch.ones(2, 16)})
    assert torch.equal(ce(folder), before)
    assert describe_model(str(folder)).notes == (
        "parts of model.safetensors that no number depends on are not used: score.",
    )


def test_a_reward_model_without_the_layer_that_predicts_tokens_has_activations_and_says_why_no_losses(folder):
    def reward(tensors):
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("embed_out")} | {
            "score.weight": torch.ones(1, 16)
        }

    whole = LanguageModel.load(str(folder))
    x = whole.activations(some_ids(whole), whole.facts.hookpoint("layers.1").path)
    edited(rewritten(folder, reward), architectures=["GPTNeoXForSequenceClassification"])
    facts = describe_model(str(folder))
    assert (facts.kind, facts.causal, facts.n_layers) == ("headless", False, 3)
    assert "saved without the layer that predicts tokens" in facts.notes[0]
    lm = LanguageModel.load(str(folder))
    path = facts.hookpoint("layers.1").path
    assert torch.equal(lm.activations(some_ids(lm), path), x)
    with pytest.raises(SuiteError, match="saved without the layer that predicts tokens, so it has no losses"):
        lm.splicer(path)
    with pytest.raises(SuiteError, match="saved without the layer that predicts tokens"):
        lm.sample(1, 4, temperature=1.0, top_p=1.0, generator=torch.Generator())


def test_an_encoder_needs_neither_its_head_nor_its_pooler(bert):
    facts = describe_model(str(bert))
    facts.check_loading()
    assert facts.kind == "encoder"
    assert any("are not used: cls" in note for note in facts.notes)
    assert any("are random: pooler" in note for note in facts.notes)


@pytest.fixture(scope="module")
def with_pictures(tmp_path_factory, neox) -> Path:
    """A model whose sizes are in `text_config`: 3 blocks of a language model behind a tower of 5."""
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = transformers.MistralConfig(
        **sizes, vocab_size=32, num_hidden_layers=3, num_key_value_heads=1, max_position_embeddings=64
    )
    vision = {**sizes, "model_type": "pixtral", "num_hidden_layers": 5, "image_size": 28, "patch_size": 14}
    config = transformers.Mistral3Config(text_config=text.to_dict(), vision_config=vision)
    folder = tmp_path_factory.mktemp("pictures")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Mistral3ForConditionalGeneration(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(neox / name, folder / name)
    return folder


def test_a_model_with_pictures_is_read_at_its_language_model(with_pictures):
    facts = describe_model(str(with_pictures))
    facts.check_loading()
    assert (facts.n_layers, facts.context_limit, facts.vocab_size, facts.causal, facts.d_model) == (3, 64, 32, True, 16)
    assert facts.hookpoint("layers.2").path.endswith("language_model.layers.2")
    lm = LanguageModel.load(str(with_pictures))
    splicer = lm.splicer(facts.hookpoint("layers.1").path)
    clean = splicer.clean(some_ids(lm))
    assert torch.equal(splicer.spliced(clean, clean.x)[0], clean.ce)


# Files


def test_an_adapter_beside_weights_is_never_applied_and_said(folder, monkeypatch):
    before, digest = ce(folder), describe_model(str(folder)).digest
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    import transformers.integrations.peft
    import transformers.models.auto.auto_factory

    # as if the package were there
    monkeypatch.setitem(sys.modules, "peft", ModuleType("peft"))
    for module in (transformers.integrations.peft, transformers.models.auto.auto_factory):
        monkeypatch.setattr(module, "is_peft_available", lambda: True, raising=False)
    assert torch.equal(ce(folder), before)
    facts = describe_model(str(folder))
    assert facts.notes == (
        "adapter_config.json and adapter_model.safetensors are not applied: "
        "all numbers are of the weights in model.safetensors alone.",
    )
    assert facts.digest == digest


def test_an_adapter_alone_names_its_base(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    refused(folder, r"adapter without the weights of its base model \(someone/base\)")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "config.json"])
@pytest.mark.parametrize(("content", "message"), [(POINTER, "pointer of Git LFS"), ("", "is empty")])
def test_pointers_and_empty_files_are_named(name, content, message, folder):
    (folder / name).write_text(content)
    refused(folder, f"{name} is .*{message.removeprefix('is ')}")


def test_a_file_cut_short_is_found_from_its_header(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-4])
    refused(folder, rf"damaged \(ValueError: it has {len(whole) - 4} bytes, its header describes {len(whole)}")


def test_weights_in_a_format_that_is_not_read_say_which(folder):
    for name, message in (
        ("model.gguf", "GGUF"),
        ("tf_model.h5", "another framework"),
        ("consolidated.safetensors", "only model.safetensors"),
        ("model-00001-of-00002.safetensors", "index of its weights"),
    ):
        path = (folder / WEIGHTS).rename(folder / name)
        refused(folder, message)
        path.rename(folder / WEIGHTS)


def sharded(folder: Path) -> dict:
    """The folder with its weights in two files and an index."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
    for shard, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, folder / shard, metadata={"format": "pt"})
    index = {"weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).unlink()
    return index


def test_shards_load_as_one_file_does_and_a_missing_one_is_named(folder):
    before = ce(folder)
    sharded(folder)
    assert torch.equal(ce(folder), before)
    save_file({"x": torch.ones(1)}, folder / "model-00003-of-00003.safetensors")
    notes = describe_model(str(folder)).notes
    assert notes == ("weights come from model.safetensors.index.json; not read: model-00003-of-00003.safetensors.",)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "1 of 2 weight files that are not there, first 'model-00002-of-00002.safetensors'")


def test_a_tensor_in_two_shards_is_refused(folder):
    sharded(folder)
    first, second = (folder / f"model-0000{part}-of-00002.safetensors" for part in (1, 2))
    tensors = load_file(first)
    save_file(load_file(second) | dict([next(iter(tensors.items()))]), second, metadata={"format": "pt"})
    refused(folder, "is both in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors")


def test_two_sets_of_one_format_are_refused_and_another_format_is_said(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    digest = describe_model(str(folder)).digest
    assert describe_model(str(folder)).notes == ("weights come from model.safetensors; not read: pytorch_model.bin.",)
    (folder / "pytorch_model.bin").unlink()
    assert describe_model(str(folder)).digest == digest
    whole = (folder / WEIGHTS).read_bytes()
    sharded(folder)
    (folder / WEIGHTS).write_bytes(whole)
    refused(folder, "two sets of weights")


@pytest.mark.parametrize("new", [True, False])
def test_pickled_weights_are_read(new, folder):
    before = ce(folder)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    (folder / WEIGHTS).unlink()
    assert torch.equal(ce(folder), before)
    edited(folder, num_hidden_layers=2)
    refused(folder, r"tensors in pytorch_model\.bin are not used")


def test_the_digest_covers_what_is_read_and_nothing_else(folder):
    sharded(folder)
    digest = describe_model(str(folder)).digest
    (folder / "generation_config.json").write_text('{"temperature": 0.1}')
    (folder / "chat_template.jinja").write_text("text")
    assert describe_model(str(folder)).digest == digest
    shutil.copytree(folder, other := folder.parent / "other")
    index = other / "model.safetensors.index.json"
    index.write_text(index.read_text() + " ")
    assert describe_model(str(other)).digest != digest


# Tokenizers


def special(folder: Path, **tokens) -> Path:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    while len(tokenizer) < 32:
        tokenizer.add_tokens([f"word{len(tokenizer)}"])
    tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["bos", "eos", "pad"])
def test_special_ids_outside_of_the_embedding_are_refused_when_planned(name, folder):
    special(folder, **{f"{name}_token": "<|new|>"})
    refused(folder, rf"the {name.upper()} token of its tokenizer has id 32, but the embedding has 32 rows\. Resize")


def test_a_text_that_gives_an_id_without_a_row_is_refused_with_it(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(special(folder))
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    lm = LanguageModel.load(str(folder))
    assert lm.encode("the cat")
    with pytest.raises(SuiteError, match="holds 'zebra', to which its tokenizer gives id 32, but the embedding has 32"):
        lm.encode("the zebra sat")


def test_a_tokenizer_that_needs_a_package_names_it(folder, monkeypatch):
    import transformers

    def missing(*_args, **_kwargs):
        raise ImportError("Tok requires the SentencePiece library. Install it with `pip install sentencepiece`.")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", missing)
    refused(folder, "tokenizer .* cannot be loaded .it needs the package sentencepiece: pip install sentencepiece")


def test_a_config_without_a_vocabulary_is_refused_plainly(folder):
    import transformers

    transformers.ViTConfig().save_pretrained(folder)
    refused(folder, r"is no language model \(vit\)")


def test_what_the_files_lack_takes_no_memory_when_planned(folder):
    edited(folder, num_hidden_layers=4, hidden_size=1 << 16, intermediate_size=1 << 20)  # 900 GB, were it made
    refused(folder, "another shape than config.json says")


def test_more_blocks_than_any_model_has_are_refused_before_they_are_built(folder):
    refused(edited(folder, num_hidden_layers=10**7), "num_hidden_layers: 10000000; allowed are 1 to 4096")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gpt_neox.", "module.gpt_neox.", r"The file calls it 'module\.gpt_neox.*unwrap"),
        ("query_key_value.", "query_key_value.base_layer.", "Merge it"),
        ("query_key_value.", "qkv.", r"as many of other names, first 'gpt_neox\.layers\.0\.attention\.qkv"),
    ],
)
def test_tensors_of_other_names_are_told(old, new, message, folder):
    refused(rewritten(folder, lambda tensors: {name.replace(old, new): t for name, t in tensors.items()}), message)


def test_weights_that_are_no_file_are_told(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    refused(folder, "its weights are no plain file")


def test_logits_that_are_not_finite_are_the_matter_of_the_weights_and_not_of_a_hookpoint(folder):
    rewritten(
        folder, lambda tensors: tensors | {name: t * float("nan") for name, t in tensors.items() if "layers.1" in name}
    )
    with pytest.raises(SuiteError, match="not finite, at every hookpoint"):
        ce(folder)


# What weight files hold


@pytest.mark.parametrize("code", ["BOOL", "C64", "I32"])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_weights_that_are_no_plain_floats_are_refused(folder, code, part):
    name = f"gpt_neox.final_layer_norm.{part}"
    dtype = {"BOOL": torch.bool, "C64": torch.float64, "I32": torch.int32}[code]
    rewritten(folder, lambda tensors: tensors | {name: tensors[name].to(dtype)})
    whole = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header[name]["dtype"] = (
        code  # complex numbers take as many bytes as float64; older releases of safetensors cannot write them
    )
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
    refused(folder, rf"'{name}' is stored as (bool|C64|int32), a quantised form or none of a weight")


def test_bytes_behind_the_last_tensor_are_found_by_the_plan(folder):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"more")
    with pytest.raises(
        SuiteError, match=r"model\.safetensors is damaged .ValueError: it has \d+ bytes, its header describes"
    ):
        describe_model(str(folder))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_wrapped_names_are_told_where_the_first_lost_one_is_tied(tied, prefix):
    rewritten(tied, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    refused(tied, rf"The file calls .*'{prefix}.*: unwrap the model")


def test_a_pickle_that_holds_more_than_tensors_says_so(folder):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save({"state_dict": tensors, "step": 3}, folder / "pytorch_model.bin")
    refused(folder, "it holds 'state_dict', 'step' in place of tensors by name: save the state dict alone")
    torch.save(torch.nn.Linear(2, 2), folder / "pytorch_model.bin")
    refused(folder, r"pytorch_model\.bin holds Python objects beside tensors, or is damaged; objects could run code")
