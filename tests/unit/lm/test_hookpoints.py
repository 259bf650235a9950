"""Names of places: what others call them is translated, and advice names places that work."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from saebench.api import SuiteError
from saebench.lm.facts import describe_model
from saebench.lm.hookpoints import default_hookpoint, find_hookpoint
from saebench.lm.trace import trace


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("blocks.2.hook_resid_post", "layers.2"),
        ("blocks.2.hook_resid_pre", "layers.1"),
        ("blocks.0.hook_resid_pre", "transformer.wte"),
        ("hook_embed", "transformer.wte"),
        ("blocks.1.hook_mlp_out", "layers.1.mlp"),
        ("blocks.1.hook_attn_out", "layers.1.attn"),
        ("blocks.1.ln1.hook_normalized", "layers.1.ln_1"),
        ("blocks.1.ln2.hook_normalized", "layers.1.ln_2"),
        ("ln_final.hook_normalized", "transformer.ln_f"),
        ("model.layers.2", "layers.2"),
        ("h.2", "layers.2"),
        ("h.2.mlp", "layers.2.mlp"),
        ("blocks.2.feed_forward", "layers.2.mlp"),
        ("model.layers.1.self_attn", "layers.1.attn"),
        ("layer.2", "layers.2"),
        ("layers[2]", "layers.2"),
        ("model.layers[2].output[0]", "layers.2"),
        ("transformer.h[1].mlp.output", "layers.1.mlp"),
        ("layer_2", "layers.2"),
        ("2", "layers.2"),
        ("layers.-1", "layers.2"),
        ("layers.-3.mlp", "layers.0.mlp"),
        ("layers.02", "layers.2"),
        ("layers.+2", "layers.2"),
        ("layers.-0", "layers.0"),
        ("layers.\u0662", "layers.2"),
        ("layers.\uff12.mlp", "layers.2.mlp"),
        ("layers.0_1", "layers.1"),
        ("transformer.h.02", "layers.2"),
    ],
)
def test_names_of_other_libraries_are_translated(name, meant, gpt2):
    facts = describe_model(str(gpt2))
    with pytest.raises(SuiteError, match=re.escape(f"Did you mean {meant!r}?")):
        facts.hookpoint(name)
    facts.hookpoint(meant)


@pytest.mark.parametrize(
    "name",
    [
        "layers.2_0",
        "layers." + "9" * 5000,
        "layers.2\u00b2",
        "layers. 2",
        "layers.2.",
        "layers.2\n",
        "layers.1e0",
        "layers.0x1",
    ],
)
def test_what_is_no_plain_number_is_refused(name, gpt2):
    with pytest.raises(SuiteError, match=r"has no hookpoint"):
        describe_model(str(gpt2)).hookpoint(name)


@pytest.mark.parametrize("name", ["blocks.1.attn.hook_z", "blocks.1.hook_resid_mid", "blocks.1.mlp.hook_post"])
def test_inner_values_say_so_and_name_the_nearest_place(name, gpt2):
    facts = describe_model(str(gpt2))
    with pytest.raises(SuiteError, match="is an inner value that no module puts out") as caught:
        facts.hookpoint(name)
    near = re.search(r"nearest place is '([\w.]+)'", str(caught.value))
    assert near is not None
    facts.hookpoint(near[1])


def test_a_block_of_another_library_that_is_not_there_names_the_range(gpt2):
    with pytest.raises(SuiteError, match=r"Its 3 blocks are layers\.0 to layers\.2\."):
        describe_model(str(gpt2)).hookpoint("blocks.7.hook_resid_post")


def test_what_a_part_adds_is_read_behind_its_own_norm_where_it_has_one():
    import transformers

    config = transformers.Gemma2Config(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        found = trace(transformers.Gemma2ForCausalLM(config).eval(), causal=True)
    for name, meant in (
        ("blocks.1.hook_mlp_out", "layers.1.post_feedforward_layernorm"),
        ("blocks.1.hook_attn_out", "layers.1.post_attention_layernorm"),
        ("blocks.1.attn.hook_q", "layers.1.self_attn.q_proj"),
        ("blocks.1.ln2.hook_normalized", "layers.1.pre_feedforward_layernorm"),
    ):
        with pytest.raises(SuiteError, match=re.escape(f"Did you mean {meant!r}?")):
            find_hookpoint(found, name, "gemma")


class Streams(nn.Module):
    """Carries several residual streams at once, as Gemma 3n does: no block puts out one row for each token."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.mlp(x[0])


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 8), nn.Linear(8, 40)
        self.layers = nn.ModuleList([Streams(), Streams(), Streams()])

    def forward(self, input_ids):
        x = self.embed(input_ids).expand(4, -1, -1, -1)
        for layer in self.layers:
            x = layer(x)
        return SimpleNamespace(logits=self.head(x[0]))


def test_advice_and_default_are_places_that_work():
    found = trace(Wide().eval(), causal=True)
    with pytest.raises(SuiteError, match=r"puts out \[4, 2, 7, 8\].* Use 'layers\.1\.mlp' or") as caught:
        find_hookpoint(found, "layers.1", "wide")
    for name in re.findall(r"'(layers[\w.]+)'", str(caught.value).partition("Use")[2]):
        assert find_hookpoint(found, name, "wide").d == 8
    assert default_hookpoint(found) == "layers.1.mlp"
    assert find_hookpoint(found, default_hookpoint(found), "wide").path == "layers.1.mlp"
