"""Splicing is exact or refused: tiny models of many families, and toys that do what spoils it."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from saebench.api import SuiteError
from saebench.lm.facts import facts_of
from saebench.lm.model import LanguageModel

VOCABULARY = 40


class Tokenizer:
    """As much of one as a language model asks for."""

    bos_token_id, eos_token_id, pad_token_id, unk_token_id = 1, 2, None, None
    all_special_ids = (1, 2)

    def __len__(self):
        return VOCABULARY


def language_model(model, config) -> LanguageModel:
    facts = facts_of(model.eval(), config, model_id="tiny", revision=None, model_digest="0")
    return LanguageModel(model, Tokenizer(), facts)


def some_ids(rows: int = 3, tokens: int = 12) -> torch.Tensor:
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 1
    return ids


def assert_exact(lm: LanguageModel, path: str) -> None:
    """The clean activation in its own place gives the clean losses: at once, again, and where logits were let go."""
    splicer = lm.splicer(path)
    clean = splicer.clean(some_ids())
    kept = clean.x.clone()
    for source in (clean, clean.slim(), clean):
        ce, kl = splicer.spliced(source, clean.x)
        assert torch.equal(ce, clean.ce)
        assert float(kl.abs().max()) == 0
    assert torch.equal(clean.x, kept)
    assert torch.equal(lm.activations(some_ids(), path), clean.x)


# Families of transformers

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 1}
HEADS = GROUPED | {"head_dim": 8}
GPT = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
FALCON = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": False}

FAMILIES = {
    "falcon": ("FalconConfig", FALCON | {"parallel_attn": True, "new_decoder_architecture": False}),
    "falcon-new": ("FalconConfig", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 1}),
    "falcon-serial": ("FalconConfig", FALCON | {"parallel_attn": False, "new_decoder_architecture": False}),
    "gpt-neox": ("GPTNeoXConfig", SIZES | {"use_parallel_residual": True}),
    "gpt-neox-serial": ("GPTNeoXConfig", SIZES | {"use_parallel_residual": False}),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 4}),
    "gpt2": ("GPT2Config", GPT),
    "codegen": ("CodeGenConfig", GPT | {"rotary_dim": 4, "n_head": 4}),
    "phi": ("PhiConfig", SIZES),
    "cohere": ("CohereConfig", GROUPED),
    "llama": ("LlamaConfig", GROUPED),
    "gemma": ("GemmaConfig", HEADS),
    "gemma2": ("Gemma2Config", HEADS),
    "olmo2": ("Olmo2Config", GROUPED),
    "stablelm-parallel": ("StableLmConfig", GROUPED | {"use_parallel_residual": True}),
    "mixtral": ("MixtralConfig", GROUPED | {"num_local_experts": 2}),
    "qwen3": ("Qwen3Config", HEADS),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": VOCABULARY, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 32, "word_embed_proj_dim": 16,
        },
    ),
}  # fmt: skip


def family(name: str) -> LanguageModel:
    import transformers

    config_class, settings = FAMILIES[name]
    config = getattr(transformers, config_class)(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # a random model of its own size is nearly flat: every block must matter
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=0.3)
    return language_model(model, config)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_place_of_a_family_is_exact_or_refused(name):
    lm = family(name)
    block = lm.model.get_submodule(f"{lm.facts.trace.blocks}.1")
    places = ["layers.0", "layers.1", *(f"layers.1.{part}" for part, _ in block.named_children())]
    exact = []
    for place in places:
        try:
            path = lm.facts.hookpoint(place).path
        except SuiteError:
            continue
        assert_exact(lm, path)
        exact.append(place)
    assert {"layers.0", "layers.1"} <= set(exact)
    assert any("attention" in place or "attn" in place for place in exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_block_of_a_family_is_exact_in_half_precision(name, dtype):
    lm = family(name)
    lm.model.to(dtype)
    assert_exact(lm, lm.facts.hookpoint("layers.0").path)


# Toys that spoil a splice


class Plain(nn.Module):
    """A block: the residual stream and its change, kept apart or together as the wrapper likes."""

    def __init__(self):
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.mlp(self.norm(x)).tanh()


class Toy(nn.Module):
    """Embedding, blocks, head."""

    def __init__(self, blocks):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=VOCABULARY, hidden_size=8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embed, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)
            self.blocks = nn.ModuleList(block() if isinstance(block, type) else block for block in blocks)

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = self.unwrapped(block(x))
        return SimpleNamespace(logits=self.head(x))

    def unwrapped(self, output):
        return output


def toy(*blocks, kind=Toy) -> LanguageModel:
    model = kind(blocks)
    return language_model(model, model.config)


class AddsInPlace(Plain):
    """A parallel block that adds one branch to the other's output in place."""

    def forward(self, x):
        out = self.mlp(x)
        out += self.norm(x)
        out += x
        return out


class WritesIntoResidual(Plain):
    """Writes into its own input, which is what the block before put out."""

    def forward(self, x):
        x += self.mlp(self.norm(x))
        return x


class HandsOn(Plain):
    """Its dropout hands on its own input, and what runs on writes into that."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        out = self.dropout(self.mlp(self.norm(x)))
        out += x
        return out


@pytest.mark.parametrize("block", [AddsInPlace, WritesIntoResidual, HandsOn])
@pytest.mark.parametrize("place", ["blocks.0", "blocks.1", "blocks.1.mlp", "blocks.1.norm", "embed", "head"])
def test_in_place_writes_reach_nothing_that_is_kept(block, place):
    lm = toy(block, block, block)
    assert_exact(lm, lm.facts.hookpoint(place).path)


Pair = namedtuple("Pair", ["hidden", "extra"])


class TupleToy(Toy):
    def unwrapped(self, output):
        return output[0]


class NamedToy(Toy):
    def unwrapped(self, output):
        return output.hidden


class MappingToy(Toy):
    def unwrapped(self, output):
        return output["hidden"]


def wrapping(make):
    class Block(Plain):
        def forward(self, x):
            return make(super().forward(x))

    return Block


def transformers_output(x):
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=x)


class OutputToy(Toy):
    def unwrapped(self, output):
        return output.last_hidden_state


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda x: (x,), TupleToy),
        (lambda x: (x, x.sum(), None), TupleToy),
        (lambda x: [x, "word"], TupleToy),
        (lambda x: Pair(x, 3), NamedToy),
        (lambda x: {"hidden": x}, MappingToy),
        (lambda x: OrderedDict(hidden=x), MappingToy),
        (transformers_output, OutputToy),
    ],
)
def test_outputs_of_every_shape_are_spliced(make, kind):
    block = wrapping(make)
    lm = toy(block, block, kind=kind)
    for place in ("blocks.0", "blocks.1"):
        assert_exact(lm, place)
    splicer = lm.splicer("blocks.0")
    clean = splicer.clean(some_ids())
    assert not torch.equal(splicer.spliced(clean, torch.zeros_like(clean.x))[0], clean.ce)


class KeepsAside(Plain):
    """Hands on by a side door what it computed, in place of what its module returned."""

    def forward(self, x):
        self.norm.last = self.norm(x)
        self.mlp(self.norm.last)
        return x + self.norm.last


class Dice(Plain):
    def forward(self, x):
        return super().forward(x) + 0.01 * torch.randn(x.shape)


class Remembers(Plain):
    """Adds what it saw in the forward before."""

    seen = 0.0

    def forward(self, x):
        out = super().forward(x) + self.seen
        self.seen = float(x.mean())
        return out


class LooksAhead(Plain):
    """Attends to both sides."""

    def forward(self, x):
        return super().forward(x) + x.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("blocks", "place", "message"),
    [
        ((KeepsAside, Plain), "blocks.0.mlp", "do not depend on what it hands on.* Use 'layers.0'"),
        ((LooksAhead, Plain), "blocks.1", "depend on the tokens behind it"),
        ((Dice, Plain), "blocks.1", "two forwards of the same tokens differ"),
        ((Remembers, Plain), "blocks.1", "two forwards of the same tokens differ"),
    ],
)
def test_what_cannot_be_exact_is_refused_with_its_cause(blocks, place, message):
    lm = toy(*blocks)
    with pytest.raises(SuiteError, match=message) as caught:
        lm.splicer(place).clean(some_ids())
    assert "\n" not in str(caught.value)


class AliasBlock(Plain):
    """Its `pass_on` returns its input itself, and the block writes into one to change the other."""

    def __init__(self):
        super().__init__()
        self.pass_on = nn.Identity()

    def forward(self, x):
        inner = self.mlp(x)
        same = self.pass_on(inner)
        inner.mul_(2.0)
        return x + same


def test_a_write_through_another_name_is_told_with_its_size_and_a_place_that_works():
    lm = toy(AliasBlock, Plain)
    with pytest.raises(
        SuiteError, match=r"in its own place moves the logits by up to .* Use 'layers\.0', where it is exact"
    ):
        lm.splicer("blocks.0.pass_on").clean(some_ids())
    assert_exact(lm, "blocks.0")


def test_a_module_that_runs_twice_is_refused_when_planned():
    shared = Plain()
    lm = toy(shared, shared)
    for place in ("layers.0", "layers.1", "layers.1.mlp"):
        with pytest.raises(SuiteError, match="runs 2 times in one forward"):
            lm.facts.hookpoint(place)
    with pytest.raises(SuiteError, match="ran 2 times"):
        lm.splicer("blocks.0").clean(some_ids())


class Reads(Plain):
    """Reads what the first block left behind in the shared place."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        return super().forward(x) + self.place["value"]


class Leaves(Plain):
    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        self.place["value"] = x.tanh()
        return super().forward(x)


def test_the_short_way_is_not_taken_where_later_blocks_read_what_skipped_ones_left_behind():
    place: dict = {}
    lm = toy(Leaves(place), Plain, Reads(place))
    assert_exact(lm, "blocks.1")
    assert lm.splicer("blocks.1").proof.short is False
    assert_exact(lm, "blocks.2")


def test_modules_that_put_out_no_row_for_each_token_are_refused_when_planned():
    class Counts(Plain):
        def __init__(self):
            super().__init__()
            self.whole, self.table = nn.Identity(), nn.Embedding(32, 8)
            self.flat = nn.Identity()

        def forward(self, x):
            x = x + self.table(torch.arange(x.shape[1])[None])
            self.whole((x > 0).long())
            return super().forward(self.flat(x.reshape(-1, 8)).view(x.shape))

    lm = toy(Counts, Plain)
    for part in ("whole", "table", "flat"):
        with pytest.raises(SuiteError, match="an SAE needs"):
            lm.facts.hookpoint(f"layers.0.{part}")
