"""How a model's weights are loaded: dtype, attention, placing, quantisation, and code of the model's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from simulated_device import simulated_cuda

from saebench.activations.forward import forward_rows
from saebench.api import SuiteError
from saebench.cells.load import PLAIN, LoadSettings
from saebench.execute.records import model_facts
from saebench.lm.book import ModelBook
from saebench.lm.facts import describe_model
from saebench.lm.folder import usable
from saebench.lm.model import LanguageModel
from saebench.testing.models import make_model

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PLACES = {"llama": "model.layers.1", "gpt2": "transformer.h.1", "gpt_neox": "gpt_neox.layers.1"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {family: make_model(tmp_path_factory.mktemp(family), family) for family in (*PLACES, "bert")}


@pytest.fixture
def llama(folders, tmp_path) -> Path:
    """A copy to change."""
    shutil.copytree(folders["llama"], tmp_path / "llama")
    return tmp_path / "llama"


def in_dtype(folder: Path, dtype: str) -> LanguageModel:
    return LanguageModel.load(str(folder), load=LoadSettings(dtype=dtype))


def some_ids(rows: int = 3, tokens: int = 16) -> torch.Tensor:
    ids = torch.randint(3, 250, (rows, tokens), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    return ids


# dtype


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", PLACES)
def test_in_half_precision_splicing_is_exact_and_what_leaves_the_model_is_float32(family, dtype, folders):
    lm, path = in_dtype(folders[family], dtype), PLACES[family]
    assert {parameter.dtype for parameter in lm.model.parameters()} == {HALVES[dtype]}
    splicer = lm.splicer(path)
    clean = splicer.clean(some_ids())
    assert (clean.x.dtype, clean.ce.dtype, clean.log_probs.dtype) == (torch.float32,) * 3
    assert torch.equal(clean.x, clean.x.to(HALVES[dtype]).float()), "they are the model's own values"
    for source in (clean, clean.slim()):
        ce, kl = splicer.spliced(source, clean.x)
        assert torch.equal(ce, clean.ce)
        assert float(kl.abs().max()) == 0
    assert torch.equal(lm.activations(some_ids(), path), clean.x)
    whole = LanguageModel.load(str(folders[family]))
    assert torch.allclose(clean.x, whole.activations(some_ids(), path), rtol=0.05, atol=0.02)
    assert not torch.equal(clean.x, whole.activations(some_ids(), path))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_other_path_takes_the_dtype(dtype, folders):
    lm = in_dtype(folders["llama"], dtype)
    draws = [lm.sample(5, 12, temperature=1.0, top_p=0.9, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    means = lm.hidden_mean(["the quick brown fox", "", "trees"])
    assert means.dtype == torch.float32
    assert means.isfinite().all()
    assert not means[1].any()
    both = lm.activations_at(some_ids(), ["model.layers.0", "model.layers.1"])
    assert {x.dtype for x in both.values()} == {torch.float32}
    encoder = in_dtype(folders["bert"], dtype)
    assert encoder.activations(some_ids(), "encoder.layer.0").dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_tables_that_must_stay_precise_do_and_tied_ones_stay_tied(dtype, folders):
    lm = in_dtype(folders["llama"], dtype)
    tables = {name: table for name, table in lm.model.named_buffers() if "inv_freq" in name}
    assert {table.dtype for table in tables.values()} == {torch.float32}
    plain = dict(LanguageModel.load(str(folders["llama"])).model.named_buffers())
    assert all(torch.equal(table, plain[name]) for name, table in tables.items())
    assert lm.model.lm_head.weight is lm.model.model.embed_tokens.weight


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_suite_and_not_the_config_says_the_dtype(key, llama):
    path = llama / "model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    config = json.loads((llama / "config.json").read_text())
    del config["dtype"]
    (llama / "config.json").write_text(json.dumps({**config, key: "bfloat16"}))
    stored = load_file(path)["model.norm.weight"]
    for dtype in (torch.float32, torch.float16):
        lm = in_dtype(llama, str(dtype).removeprefix("torch."))
        assert {parameter.dtype for parameter in lm.model.parameters()} == {dtype}
        assert torch.equal(lm.model.model.norm.weight, stored.to(dtype))
    assert describe_model(str(llama)).forward_flops_per_token() > 0


def large(folder: Path, name: str, value: float) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = torch.full_like(tensors[name], value)
    save_file(tensors, path, metadata={"format": "pt"})


def test_values_that_float16_cannot_hold_are_named_with_what_can(llama):
    large(llama, "model.layers.0.mlp.down_proj.weight", 3e4)
    large(llama, "model.layers.0.mlp.up_proj.weight", 3.0)
    large(llama, "model.layers.0.mlp.gate_proj.weight", 3.0)
    lm = in_dtype(llama, "float16")
    advice = r"not finite\. float16 ends at 65,504\. Write dtype: bfloat16"
    generator = torch.Generator().manual_seed(0)
    for call in (
        lambda: forward_rows(lm, ["model.layers.1"], some_ids(), 0),
        lambda: lm.splicer("model.layers.1").clean(some_ids()),
        lambda: lm.sample(2, 8, temperature=1.0, top_p=1.0, generator=generator),
        lambda: lm.hidden_mean(["the quick brown fox"]),
        lambda: ModelBook().prove(str(llama), None, "model.layers.1", (), LoadSettings(dtype="float16")),
    ):
        with pytest.raises(SuiteError, match=advice) as caught:
            call()
        assert "\n" not in str(caught.value)
    for dtype in ("bfloat16", "float32"):
        assert (
            forward_rows(in_dtype(llama, dtype), ["model.layers.1"], some_ids(), 0).x["model.layers.1"].isfinite().all()
        )


PEAK = """
import re, sys, threading, time
from pathlib import Path
from saebench.cells.load import LoadSettings
from saebench.lm.model import LanguageModel
import transformers.models.llama.modeling_llama

def own():  # pages of files are left out: they are the disk's cache, and go when others need the memory
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

folder, small, dtype = sys.argv[1:]
LanguageModel.load(small, load=LoadSettings(dtype=dtype))
before, peak, over = own(), 0, False
def watch():
    global peak
    while not over:
        peak = max(peak, own())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
lm = LanguageModel.load(folder, load=LoadSettings(dtype=dtype))
over = True
watcher.join()
print(max(peak, own()) - before, sum(p.nbytes for p in lm.model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_a_model_in_bfloat16_takes_half_the_memory_while_it_is_loaded_too(stored, folders, tmp_path):
    make_model(tmp_path, "llama", d_model=768, n_layers=9)
    path = tmp_path / "model.safetensors"
    tensors = {name: value.to(getattr(torch, stored)) for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    n_weights = sum(value.numel() for value in tensors.values())
    assert n_weights > 40_000_000

    call = [sys.executable, "-c", PEAK, str(tmp_path), str(folders["llama"]), "bfloat16"]
    output = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    peak, held = map(int, output.split())
    assert held == 2 * n_weights
    assert peak < 1.25 * held, "a copy of the whole in another precision was made on the way"


# ids and records


def test_ids_and_records_go_by_what_is_not_default_alone(folders):
    folder = str(folders["llama"])
    plain = describe_model(folder)
    assert describe_model(folder, load=LoadSettings()).digest == plain.digest
    assert describe_model(folder, load=LoadSettings(device_map="auto")).digest == plain.digest, "as the device"
    settings = [
        *(LoadSettings(dtype=dtype) for dtype in HALVES),
        LoadSettings(attention="eager"),
        LoadSettings(quantisation="8bit"),
        LoadSettings(trust_remote_code=True),
    ]
    assert len({plain.digest, *(describe_model(folder, load=load).digest for load in settings)}) == 6
    assert PLAIN.to_json() == {}
    load = LoadSettings("bfloat16", device_map=(("lm_head", 0), ("", "cpu")))
    assert load.to_json() == {"dtype": "bfloat16", "device_map": {"lm_head": 0, "": "cpu"}}
    assert load.decides() == {"dtype": "bfloat16"}


def test_a_record_holds_how_the_model_was_loaded_where_that_is_not_the_default():
    from saebench.cells.cell import ModelUse

    use = ModelUse("m", None, "d", "h", "h", 32)
    plain = model_facts(use)
    assert set(plain) == set(asdict(use)) - {"load", "is_here"}, "records of today's suites are as they were"
    half = model_facts(ModelUse("m", None, "d", "h", "h", 32, load=LoadSettings("bfloat16", "eager")))
    assert half == plain | {"load": {"dtype": "bfloat16", "attention": "eager"}}


# attention, placing, quantisation


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_an_attention_is_used_and_moves_little(attention, folders):
    lm = LanguageModel.load(str(folders["llama"]), load=LoadSettings(attention=attention))
    assert lm.model.config._attn_implementation == attention
    plain = LanguageModel.load(str(folders["llama"]))
    path = PLACES["llama"]
    assert torch.allclose(lm.activations(some_ids(), path), plain.activations(some_ids(), path), atol=1e-5)
    assert lm.splicer(path).clean(some_ids()).ce.isfinite().all()


NOT_HERE = {
    "attention 'sdap' is none .* Did you mean 'sdpa'": LoadSettings(attention="sdap"),
    "attention 'kernels-community/flash-attn' is none .* never fetched": LoadSettings(
        attention="kernels-community/flash-attn"
    ),
    "attention flash_attention_2 needs a GPU": LoadSettings("bfloat16", attention="flash_attention_2"),
    "load.quantisation 4bit needs a GPU": LoadSettings(quantisation="4bit"),
    "on the disk, from where nothing is read": LoadSettings(device_map=(("lm_head", "disk"), ("model", "cpu"))),
    "device_map needs the package accelerate: pip install accelerate": LoadSettings(device_map="auto"),
}


@pytest.mark.parametrize("message", NOT_HERE)
def test_what_this_machine_cannot_load_is_refused_in_a_line(message, folders, monkeypatch):
    load = NOT_HERE[message]
    monkeypatch.setattr(usable, "_has", lambda package: package == "accelerate" and "accelerate" not in message)
    for call in (
        lambda: LanguageModel.load(str(folders["llama"]), load=load),
        lambda: ModelBook().model(str(folders["llama"]), None, load),
    ):
        with pytest.raises(SuiteError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_plan_for_another_machine_notes_what_this_one_cannot_load(folders):
    load = LoadSettings("bfloat16", attention="flash_attention_2")
    facts = ModelBook(config_alone=True).model(str(folders["llama"]), None, load)
    (note,) = facts.notes
    assert note.startswith("this machine cannot run it as the suite says: attention flash_attention_2 needs a GPU")
    assert ModelBook(config_alone=True).model(str(folders["llama"])).notes == ()


@pytest.mark.parametrize(
    ("load", "missing", "message"),
    [
        (LoadSettings(quantisation="8bit"), ("bitsandbytes",), "needs bitsandbytes: pip install bitsandbytes"),
        (LoadSettings("bfloat16", "flash_attention_2"), ("flash_attn",), "needs the package flash_attn"),
        (LoadSettings(attention="flash_attention_2"), (), "computes in half precision only. Set dtype: bfloat16"),
    ],
)
def test_on_a_gpu_what_is_missing_is_named(load, missing, message, folders, monkeypatch):
    monkeypatch.setattr(usable, "_has", lambda package: package not in missing)
    why = usable.not_usable(load, "cuda:0", None, "decoder")
    assert message in why


def test_an_attention_that_a_class_does_not_have_is_refused(folders, monkeypatch):
    def fails(*_args, **_kwargs):
        raise ValueError("LlamaForCausalLM does not support an attention implementation through sdpa yet.")

    monkeypatch.setattr("saebench.lm.hf.new_model", fails)
    why = usable.not_usable(LoadSettings(attention="sdpa"), "cpu", object(), "decoder")
    assert why.startswith("attention sdpa cannot be used with it (ValueError: LlamaForCausalLM does not support")


def test_what_a_plugin_loads_is_the_plugins_to_decide(folders):
    class Plugins:
        def load_model(self, ref):
            return LanguageModel.load(str(folders["llama"])).model if ref["id"] == "mine" else None

    for call in (describe_model, LanguageModel.load):
        with pytest.raises(SuiteError, match="'mine' is loaded by a plugin, which alone decides dtype"):
            call("mine", catalog=Plugins(), load=LoadSettings("bfloat16"))


def moves_to(device: str):
    """What accelerate hangs on a module whose weights are on another device than its neighbours'."""

    def move(value):
        if isinstance(value, torch.Tensor):
            return value.to(device)
        return tuple(map(move, value)) if isinstance(value, tuple) else value

    return lambda _module, args, kwargs: (move(args), {name: move(value) for name, value in kwargs.items()})


def test_a_hookpoint_on_another_device_gives_the_same_numbers_on_the_runs_own(folders):
    plain, path = LanguageModel.load(str(folders["llama"])), PLACES["llama"]
    clean = plain.splicer(path).clean(some_ids())
    with simulated_cuda():
        lm = LanguageModel.load(str(folders["llama"]))
        for index, device in enumerate(("cpu", "cuda", "cpu")):
            block = lm.model.get_submodule(f"model.layers.{index}").to(device)
            block.register_forward_pre_hook(moves_to(device), with_kwargs=True)
        x = lm.activations_at(some_ids(), ["model.layers.0", path])[path]
        assert x.device == lm.device == torch.device("cpu")
        assert torch.allclose(x, clean.x, atol=1e-6)
        splicer = lm.splicer(path)
        here = splicer.clean(some_ids())
        assert torch.allclose(here.ce, clean.ce, atol=1e-5)
        other = torch.zeros_like(clean.x)
        for ours, theirs in zip(splicer.spliced(here, other), plain.splicer(path).spliced(clean, other), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


# code of the model's own

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class MineConfig(LlamaConfig):
    model_type = "mine-of-this-test"

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture
def own_code(llama, tmp_path, monkeypatch) -> Path:
    """A folder whose model is code of its own, which transformers copies into a folder of its cache."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    (llama / "code_of_mine.py").write_text(CODE)
    named = {"AutoConfig": "code_of_mine.MineConfig", "AutoModelForCausalLM": "code_of_mine.MineForCausalLM"}
    config = json.loads((llama / "config.json").read_text()) | {"model_type": "mine-of-this-test", "auto_map": named}
    (llama / "config.json").write_text(json.dumps(config))
    yield llama
    sys.path[:] = [path for path in sys.path if path != str(tmp_path / "modules")]


def test_a_folder_without_code_is_not_said_to_run_some(llama):
    (note,) = describe_model(str(llama), load=LoadSettings(trust_remote_code=True)).notes
    assert note == "load.trust_remote_code lets code of its own run, and its folder holds none."


def test_code_of_a_folder_is_run_where_the_suite_says_so_and_the_record_says_it_too(own_code):
    with pytest.raises(SuiteError, match=r"unless the suite says `load: \{trust_remote_code: true\}`"):
        describe_model(str(own_code))
    trusting = LoadSettings(trust_remote_code=True)
    lm = LanguageModel.load(str(own_code), load=trusting)
    assert type(lm.model).__name__ == "MineForCausalLM"
    assert lm.facts.kind == "decoder"
    assert lm.facts.notes == ("its own code runs here (code_of_mine.py), as load.trust_remote_code says.",)
    assert lm.splicer("model.layers.1").clean(some_ids()).ce.isfinite().all()
    (own_code / "code_of_mine.py").write_text(CODE + "\n# changed\n")
    assert describe_model(str(own_code), load=trusting).digest != lm.facts.digest


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_another_place_is_never_run(name, own_code):
    values = json.loads((own_code / name).read_text())
    values["auto_map"] = {"AutoConfig": ["someone/else--code.Config", None]}
    (own_code / name).write_text(json.dumps(values))
    with pytest.raises(
        SuiteError, match=f"{name} names code of another place .*only the code in its own folder is run"
    ):
        describe_model(str(own_code), load=LoadSettings(trust_remote_code=True))
