"""A language model on the simulated card: activations, losses with a replaced output, samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from simulated_device import Card, simulated_cuda

from saebench.lm.model import LanguageModel
from saebench.measure.machine import run_numerics
from saebench.testing import make_model

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Attention takes another kernel where a tensor is not the processor's."""
FAMILIES = ("llama", "gpt2")
SPLICED = {
    "saebench/lm/loaded.py:LoadedModel.run",  # ids come from the processor
    *(f"saebench/lm/splicing.py:Splicer.{name}" for name in ("clean", "_logits")),  # how many positions count
    "saebench/lm/splicing.py:CleanPass.targets",
    "transformers/",  # waits as it likes
}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / request.param, request.param, n_layers=2)


@pytest.fixture
def models(folder: Path):
    """The model on the processor and on the card, with the numerics of a run: what is not deterministic is refused."""
    here = LanguageModel.load(str(folder))
    with simulated_cuda() as card, run_numerics(1):
        yield here, LanguageModel.load(str(folder), device="cuda"), card


def test_forwards_losses_and_samples_are_those_of_the_processor(
    models: tuple[LanguageModel, LanguageModel, Card],
) -> None:
    here, there, card = models
    hookpoint = here.facts.hookpoint("layers.1").path
    ids = torch.randint(3, here.vocab_size, (4, 12), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = here.bos_id

    with card.hot("a forward", allowed={"saebench/lm/loaded.py:LoadedModel.run", "transformers/"}):
        x = there.activations(ids, hookpoint)
    assert x.is_cuda
    torch.testing.assert_close(x.cpu(), here.activations(ids, hookpoint), **CLOSE)

    clean, clean_there = here.splicer(hookpoint).clean(ids, 30), there.splicer(hookpoint).clean(ids, 30)
    assert there.splicer(hookpoint).proof == here.splicer(hookpoint).proof
    with card.hot("losses", allowed=SPLICED):
        again = there.splicer(hookpoint).clean(ids, 30)
        losses = (again.ce, *there.splicer(hookpoint).spliced(again, again.x * 0.9))
    for mine, its in zip(losses, (clean.ce, *here.splicer(hookpoint).spliced(clean, clean.x * 0.9)), strict=True):
        torch.testing.assert_close(mine.cpu(), its, **CLOSE)
    assert torch.equal(clean_there.ce.cpu(), again.ce.cpu())

    for top_p in (1.0, 0.5):
        drawn = [
            lm.sample(8, 8, temperature=1.0, top_p=top_p, generator=torch.Generator().manual_seed(1))
            for lm in (here, there)
        ]
        assert torch.equal(*drawn) and not drawn[1].is_cuda
