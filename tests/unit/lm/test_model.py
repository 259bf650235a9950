"""Activations, masks, splicing and sampling on tiny random models, and on real ones where there are any."""

from __future__ import annotations

import pytest
import torch

from saebench.api import SuiteError
from saebench.base.random import generator
from saebench.lm.model import LanguageModel
from saebench.lm.sampling import choose, next_probabilities, sample

MODELS = ["gpt2", "neox"]


@pytest.fixture(params=MODELS)
def lm(request) -> LanguageModel:
    return LanguageModel.load(str(request.getfixturevalue(request.param)))


def some_ids(lm: LanguageModel, rows: int = 3, length: int = 12) -> torch.Tensor:
    ids = torch.randint(3, lm.vocab_size, (rows, length), generator=generator("ids"))
    ids[:, 0] = lm.bos_id
    ids[1, 5] = lm.eos_id
    return ids


def test_activations_are_the_modules_output_and_the_forward_stops(lm):
    ids = some_ids(lm)
    path = lm.facts.hookpoint("layers.1").path
    with torch.no_grad():
        states = lm.model(input_ids=ids, output_hidden_states=True).hidden_states
    ran = []
    last = lm.model.get_submodule(lm.facts.hookpoint("layers.2").path)
    handle = last.register_forward_hook(lambda *_: ran.append(1))
    assert torch.equal(lm.activations(ids, path), states[2])
    handle.remove()
    assert not ran
    hooks = sum(len(module._forward_hooks) for module in lm.model.modules())
    both = lm.activations_at(ids, [path, lm.facts.hookpoint("layers.0").path])
    assert torch.equal(both[lm.facts.hookpoint("layers.0").path], states[1])
    assert sum(len(module._forward_hooks) for module in lm.model.modules()) == hooks


def test_bos_without_a_bos(gpt2, neox):
    assert LanguageModel.load(str(gpt2)).bos_id == LanguageModel.load(str(gpt2)).eos_id == 0
    lm = LanguageModel.load(str(neox))
    assert lm.bos_id != lm.eos_id
    assert lm.special_ids == {lm.bos_id, lm.eos_id}


def test_text_round_trip_and_special_words_in_text_are_text(neox):
    lm = LanguageModel.load(str(neox))
    assert lm.decode(lm.encode("the cat sat")) == "the cat sat"
    assert not set(lm.encode("the cat </s> sat")) & lm.special_ids
    assert lm.token_texts(lm.encode("cat dog")) == ["cat", "dog"]


def naive_losses(lm, ids, path, edit):
    """One hook, all positions, no short cut: the reference."""

    def hook(_module, _args, output):
        x = output[0] if isinstance(output, tuple) else output
        new = torch.where(lm.special_mask(ids)[..., None], x, edit(x))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = lm.model.get_submodule(path).register_forward_hook(hook)
    with torch.no_grad():
        logits = lm.model(input_ids=ids).logits
    handle.remove()
    return torch.log_softmax(logits.double(), -1)


@pytest.mark.parametrize("name", ["layers.0", "layers.1", "layers.2", "layers.1.mlp"])
def test_losses_against_a_naive_reference(lm, name):
    ids = some_ids(lm)
    path = lm.facts.hookpoint(name).path
    edits = {"spliced": lambda x: 0.7 * x + 0.1, "zero": torch.zeros_like, "same": lambda x: x}
    splicer = lm.splicer(path)
    clean_pass = splicer.clean(ids)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row in range(len(ids)):
        for position in range(ids.shape[1] - 1):
            pair = {int(ids[row, position]), int(ids[row, position + 1])}
            mask[row, position] = not pair & lm.special_ids
    assert torch.equal(clean_pass.has_loss, mask)
    clean = naive_losses(lm, ids, path, lambda x: x)
    targets = ids.roll(-1, 1)
    for edit in edits.values():
        edited = naive_losses(lm, ids, path, edit)
        ce = -edited.gather(-1, targets[..., None])[..., 0][mask]
        kl = (clean.exp() * (clean - edited)).sum(-1)[mask]
        ours = splicer.spliced(clean_pass, edit(clean_pass.x))
        assert torch.allclose(ours[0].double(), ce, atol=1e-4)
        assert torch.allclose(ours[1].double(), kl, atol=1e-4)


@pytest.mark.parametrize("name", ["layers.0", "layers.2", "layers.1.mlp"])
def test_splicing_the_identity_changes_nothing_at_all(lm, name):
    splicer = lm.splicer(lm.facts.hookpoint(name).path)
    clean = splicer.clean(some_ids(lm))
    ce, kl = splicer.spliced(clean, clean.x.clone())
    assert torch.equal(ce, clean.ce)
    assert torch.equal(kl, torch.zeros_like(kl))


def test_the_short_way_is_taken_for_blocks_and_leaves_the_model_as_it_was(lm):
    path = lm.facts.hookpoint("layers.1").path
    splicer = lm.splicer(path)
    clean = splicer.clean(some_ids(lm))
    assert splicer.proof is not None and splicer.proof.short
    splicer.spliced(clean, clean.x)
    assert all("forward" not in module.__dict__ for module in lm.model.modules())
    assert lm.splicer(lm.facts.hookpoint("layers.1.mlp").path)._forward._blocks == []


def test_slim_passes_give_the_same_losses(lm):
    splicer = lm.splicer(lm.facts.hookpoint("layers.1").path)
    clean = splicer.clean(some_ids(lm), limit=7)
    assert int(clean.has_loss.sum()) == len(clean.ce) == 7
    x = clean.x * 0.5
    for ours, slim in zip(splicer.spliced(clean, x), splicer.spliced(clean.slim(), x), strict=True):
        assert torch.allclose(ours, slim, atol=1e-6)


def test_sampling_with_a_cache_equals_whole_prefixes(lm):
    ids = [
        sample(lm, 40, 20, temperature=1.0, top_p=0.95, generator=generator("s", 1), use_cache=use)
        for use in (True, False)
    ]
    assert torch.equal(*ids)
    again = lm.sample(40, 20, temperature=1.0, top_p=0.95, generator=generator("s", 1))
    assert torch.equal(ids[0], again)
    assert not torch.equal(again, lm.sample(40, 20, temperature=1.0, top_p=0.95, generator=generator("s", 2)))


def test_samples_begin_with_bos_end_in_eos_and_stay_in_the_vocabulary(lm):
    ids = lm.sample(300, 16, temperature=1.5, top_p=1.0, generator=generator("v"))
    assert ids.shape == (300, 16)
    assert bool((ids[:, 0] == lm.bos_id).all())
    assert int(ids.max()) < lm.vocab_size <= lm.facts.vocab_size
    ended = (ids[:, 1:] == lm.eos_id).cumsum(1) > 0
    assert bool(ended.any())
    assert bool((ids[:, 1:][ended] == lm.eos_id).all())


def test_sampling_refuses_what_it_cannot_do(lm):
    with pytest.raises(SuiteError, match="at most 64"):
        lm.sample(1, 65, temperature=1.0, top_p=1.0, generator=generator("x"))
    with pytest.raises(SuiteError, match="temperature > 0"):
        lm.sample(1, 8, temperature=0.0, top_p=1.0, generator=generator("x"))


def test_next_probabilities_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert torch.allclose(
        next_probabilities(logits, temperature=1.0, top_p=1.0), torch.tensor([[0.5, 0.3, 0.2]]).double(), atol=1e-6
    )
    assert torch.allclose(
        next_probabilities(logits, temperature=1.0, top_p=0.6), torch.tensor([[0.625, 0.375, 0.0]]).double(), atol=1e-6
    )
    sharper = torch.tensor([0.25, 0.09, 0.04]) / 0.38
    assert torch.allclose(next_probabilities(logits, temperature=0.5, top_p=1.0)[0], sharper.double(), atol=1e-6)


def test_choose_inverts_the_distribution():
    probabilities = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64).expand(5, 3)
    uniform = torch.tensor([0.0, 0.49, 0.5, 0.99, 1 - 2**-53], dtype=torch.float64)
    assert choose(probabilities, uniform).tolist() == [0, 0, 2, 2, 2]


def test_hidden_mean_does_not_depend_on_neighbours(lm):
    texts = ["the cat sat", "", "a big red dog ran under the tree"]
    together = lm.hidden_mean(texts)
    assert torch.equal(together[1], torch.zeros(16))
    assert torch.allclose(together[2], lm.hidden_mean([texts[2]])[0], atol=1e-5)
    ids = torch.tensor([[lm.bos_id, *lm.encode(texts[0])]])
    expected = lm.activations(ids, lm.facts.hookpoint("layers.2").path)[0, 1:].mean(0)
    assert torch.allclose(together[0], expected, atol=1e-5)


def test_an_encoder_has_activations_but_no_losses(bert):
    lm = LanguageModel.load(str(bert))
    ids = some_ids(lm)
    assert lm.activations(ids, lm.facts.hookpoint("layers.0").path).shape == (3, 12, 16)
    assert lm.hidden_mean(["the cat", "a dog ran"]).shape == (2, 16)
    with pytest.raises(SuiteError, match="encoder"):
        lm.splicer("encoder.layer.0")
    with pytest.raises(SuiteError, match="encoder"):
        lm.sample(1, 4, temperature=1.0, top_p=1.0, generator=generator("x"))


@pytest.mark.parametrize("name", ["stories260k", "prose-6m"])
def test_real_models_predict_and_splice(name, material):
    lm = LanguageModel.load(str(material / "models" / name))
    text = "Once upon a time, there was a little girl named Lily. She liked to play in the park with her mom and dad."
    ids = torch.tensor([[lm.bos_id, *lm.encode(text)]])
    path = lm.facts.hookpoint("layers.2").path
    splicer = lm.splicer(path)
    clean = splicer.clean(ids)
    zero, (same, kl) = splicer.spliced(clean, torch.zeros_like(clean.x))[0], splicer.spliced(clean, clean.x)
    assert float(clean.ce.mean()) < 4.5 < float(zero.mean())
    assert torch.equal(same, clean.ce)
    assert float(kl.abs().max()) == 0
    assert splicer.proof.short
    one, two = (
        sample(lm, 4, 24, temperature=1.0, top_p=1.0, generator=generator("real"), use_cache=use)
        for use in (True, False)
    )
    assert torch.equal(one, two)
