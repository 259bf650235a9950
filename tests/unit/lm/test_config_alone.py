"""Models that are planned from their config: weights, or a tokenizer, are not here."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from saebench.api import SuiteError
from saebench.jobs import plan_suite, run_suite
from saebench.lm.book import ModelBook
from saebench.lm.facts import describe_model
from saebench.lm.trace import trace

CONFIGS = Path(__file__).parents[3] / "benchmarks" / "suites" / "configs"
SIZES = {
    "gpt2": (124_439_808, 12, 768, 50_257, 1024),
    "pythia-160m": (162_322_944, 12, 768, 50_304, 2048),
    "Llama-3.2-1B": (1_235_814_400, 16, 2048, 128_256, 131_072),
    "gemma-2-2b": (2_614_341_888, 26, 2304, 256_000, 8192),
    "Qwen2.5-3B": (3_085_938_688, 36, 2048, 151_936, 32_768),
}
"""Parameters, blocks, width, rows of the embedding and context, as their authors publish them."""
SUITE = """\
schema: 1
name: s
models:
  - {{id: {model}, hookpoints: [layers.0, layers.2], context: 32}}
datasets:
  text: {{plugin: local, path: {text}}}
entries:
  - {{name: topk, architecture: topk, dataset: text, config: {{d_sae: 32, k: 4}}}}
budget: {{tokens: 2_000}}
evaluation: {{tokens: 500, loss_tokens: 200, density_tokens: 500}}
"""


@pytest.fixture
def without(gpt2, tmp_path):
    """Makes a copy of a model folder without some of its files."""

    def make(*names: str) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(gpt2, folder)
        for name in names:
            (folder / name).unlink()
        return folder

    return make


@pytest.fixture
def suite(tmp_path):
    documents = (f"the cat {i} sat on the mat and then it saw the old house" for i in range(400))
    (tmp_path / "text.txt").write_text("\n\n".join(documents))

    def write(model: Path) -> Path:
        path = tmp_path / "s.yaml"
        path.write_text(SUITE.format(model=model, text=tmp_path / "text.txt"))
        return path

    return write


@pytest.mark.parametrize("name", SIZES)
def test_large_models_are_read_from_their_configs_in_moments(name):
    n_parameters, n_layers, d_model, n_rows, context = SIZES[name]
    started = time.perf_counter()
    facts = ModelBook(config_alone=True).model(str(CONFIGS / name))
    assert time.perf_counter() - started < 30, "nothing may be allocated or initialised"  # 2 s beside nothing else
    assert (facts.n_parameters, facts.n_layers, facts.d_model) == (n_parameters, n_layers, d_model)
    assert (facts.vocab_size, facts.context_limit, facts.causal) == (n_rows, context, True)
    assert facts.hookpoint("layers.5").d == d_model
    embedding = n_rows * d_model
    assert facts.forward_flops_per_token() == pytest.approx(2 * n_parameters, rel=0.6 if embedding > 3e7 else 0.1)


def test_facts_of_the_config_are_those_of_the_whole_model_but_for_what_is_not_here(gpt2, without):
    whole, bare = describe_model(str(gpt2)), describe_model(str(without("model.safetensors")), config_alone=True)
    assert (whole.trace, whole.n_parameters, whole.kind) == (bare.trace, bare.n_parameters, bare.kind)
    assert (whole.lacks, bare.lacks, bare.weights) == ((), ("weights",), None)
    assert bare.digest.startswith("config-")
    assert bare.digest[-64:] != whole.digest
    text = "the cat sat on the mat"
    assert bare.tokens_in(text) == whole.tokens_in(text)


def test_a_whole_model_has_the_same_facts_for_a_plan(gpt2):
    assert describe_model(str(gpt2), config_alone=True) == describe_model(str(gpt2))


@pytest.mark.parametrize(
    ("gone", "lacks", "note"),
    [
        (("model.safetensors",), ("weights",), "its weights are not here"),
        (("tokenizer.json",), ("tokenizer",), "its tokenizer is not here.*4 characters each"),
        (("model.safetensors", "tokenizer.json"), ("weights", "tokenizer"), "weights and its tokenizer are not here"),
    ],
)
def test_a_plan_says_once_what_is_not_here_and_a_run_is_refused(gone, lacks, note, without, suite, tmp_path):
    folder = without(*gone)
    facts = describe_model(str(folder), config_alone=True)
    assert facts.lacks == lacks
    path = suite(folder)
    plan = plan_suite(path, out=tmp_path / "out")
    (line,) = [warning for warning in plan.warnings if "not here" in warning]
    assert re.search(note, line)
    assert "a run will have other ids. `run` needs the whole model." in line
    assert len(plan.cells) == 2
    assert {cell.model.is_here for cell in plan.cells} == {False}
    assert plan.cells[0].dataset.holds["train"] > 0
    with pytest.raises(SuiteError, match=r"s\.yaml:4 models\[0\]\.id: .*missing.*needs config\.json alone") as caught:
        run_suite(path, out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_tokens_are_counted_as_characters_where_there_is_no_tokenizer(without):
    facts = describe_model(str(without("tokenizer.json")), config_alone=True)
    assert (facts.tokens_in("12345678"), facts.tokens_in("123456789"), facts.tokens_in("")) == (2, 3, 0)


def test_what_can_be_measured_is_and_the_model_is_not_loaded_for_it(without, suite, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = plan_suite(suite(without("model.safetensors")), out=tmp_path / "out", measure=True)
    assert plan.estimate.basis["source"] == "measured"
    assert plan.estimate.seconds > 0


def test_the_index_of_weights_alone_is_no_weight(without):
    folder = without("model.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert describe_model(str(folder), config_alone=True).lacks == ("weights",)
    with pytest.raises(SuiteError, match="names 1 of 1 weight files that are not there"):
        describe_model(str(folder))


def no_meta(model, *, causal):
    if next(model.parameters()).device.type == "meta":
        raise RuntimeError("unknown device type for autocast")
    return trace(model, causal=causal)


@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_a_class_that_the_meta_device_cannot_run_is_planned_on_stand_ins(family, request, tmp_path, monkeypatch):
    whole = describe_model(str(request.getfixturevalue(family)))
    shutil.copy(request.getfixturevalue(family) / "config.json", tmp_path)
    monkeypatch.setattr("saebench.lm.facts.trace", no_meta)
    assert describe_model(str(tmp_path), config_alone=True).trace == whole.trace
    monkeypatch.setattr("saebench.lm.folder.loading.FakeTensorMode", broken)
    (tmp_path / "README.md").write_text("another state of the folder")
    with pytest.raises(SuiteError, match=r"without them a forward of it fails \(ValueError: needs values\)\. Give the"):
        describe_model(str(tmp_path), config_alone=True)


def broken():
    raise ValueError("needs values")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"", "is empty"),
        ("model.safetensors", b"not weights", "is damaged"),
        ("model-00001-of-00002.safetensors", b"half", "the index of its weights .* is not there"),
        ("model.gguf", b"GGUF", "GGUF file"),
        ("tokenizer.json", b"{", "tokenizer"),
        ("config.json", b"{", r"config\.json cannot be read"),
    ],
)
def test_what_is_here_and_damaged_or_half_is_an_error_of_the_plan_too(name, content, message, without):
    folder = without("model.safetensors")
    (folder / name).write_bytes(content)
    with pytest.raises(SuiteError, match=message):
        describe_model(str(folder), config_alone=True)


def test_a_folder_without_a_config_is_no_model_for_a_plan_either(without):
    with pytest.raises(SuiteError, match=r"config\.json and weights \(model\.safetensors\) missing"):
        describe_model(str(without("config.json", "model.safetensors")), config_alone=True)


def test_a_hub_id_is_planned_from_what_the_cache_has(gpt2, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    here = tmp_path / "models--someone--model"
    (here / "refs").mkdir(parents=True)
    (here / "refs" / "main").write_text("c0ffee")
    snapshot = here / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    shutil.copy(gpt2 / "config.json", snapshot)
    facts = describe_model("someone/model", config_alone=True)
    assert facts.lacks == ("weights", "tokenizer")
    with pytest.raises(SuiteError, match="missing"):
        describe_model("someone/model")
