"""What a plugin learns or tells off the books ends its cell, with both numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from saebench.api import ArchitectureSpec, SparseCodes
from saebench.train.audit import Work, checked_steps


def learn(sae, x, steps=120):
    """Steps of Adam that nobody asked for."""
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-3)
    with torch.enable_grad():
        for _ in range(steps):
            optimiser.zero_grad()
            (sae.decode(sae.encode(x)) - x).square().mean().backward()
            optimiser.step()


def forged(terms, **changes):
    return dataclasses.replace(terms, **changes)


def ended(kit, module, **more):
    kit.add("cheat", module, **more)
    outcome = kit.train(kit.cell("cheat"))
    return outcome.status, (outcome.error or {}).get("message", ""), outcome


def test_work_counts_products_and_the_rest_by_hand():
    x, W = torch.ones(4, 8), torch.ones(16, 8, requires_grad=True)
    with Work() as work:
        (x @ W.T).sum().backward()
    assert work.dense == 2 * (2 * 4 * 8 * 16)  # forward, and the gradient of W
    with Work() as work:
        torch.empty(1000), torch.empty_like(x), x.new_empty(1000), x.T
    assert work.flops == 0  # a kernel that keeps memory makes it once
    sparse = torch.eye(4).to_sparse()
    with Work() as work:
        sparse @ x
    assert work.dense == 0
    with Work() as work, torch.inference_mode():
        torch.nn.functional.linear(x, W)
    assert work.dense == 2 * 4 * 8 * 16
    with Work() as work:
        torch.linalg.lstsq(torch.ones(8, 4), torch.ones(8, 2))
    assert work.dense >= 2 * 8 * 4 * 4


def test_the_first_step_is_checked_and_others_that_the_cell_decides():
    steps = checked_steps("a", 1000)
    assert {0, 999} < steps < set(range(1000))
    assert steps != checked_steps("b", 1000)
    assert checked_steps("a", 3) == {0, 1, 2}


@pytest.mark.parametrize("hook", ["init_from_data", "finalize", "after_step", "param_groups", "eval"])
def test_learning_in_a_hook_is_over_budget(kit, hook):
    class Cheat(kit.Tiny):
        def init_from_data(self, x, generator):
            super().init_from_data(x, generator)
            self.kept = x[:64].clone()
            if hook == "init_from_data":
                learn(self, x)

    if hook in ("finalize", "after_step", "param_groups", "eval"):

        def method(self, *arguments):
            learn(self, self.kept)
            return {"param_groups": [{"params": list(self.parameters())}], "eval": self}.get(hook)

        setattr(Cheat, hook, method)
    status, message, outcome = ended(kit, Cheat)
    assert status == "over_budget", message
    name = {"eval": "finalize"}.get(hook, hook)
    assert f"{name} {outcome.hooks['flops'][name]:,} FLOPs" in message and "its hooks spent" in message


def test_learning_in_encode_during_a_step_is_named(kit):
    class Cheat(kit.Tiny):
        def training_loss(self, batch, step):
            if step.index == 5:
                with torch.no_grad():
                    self.W_enc.mul_(1.01)
            return super().training_loss(batch, step)

    class Data(kit.Tiny):
        def training_loss(self, batch, step):
            self.W_enc.data.mul_(1.01)  # does not raise the version
            return super().training_loss(batch, step)

    for module in (Cheat, Data):
        status, message, _ = ended(kit, module)
        assert status == "failed" and "the weights changed while loss and codes" in message


@pytest.mark.parametrize("part", ["x_hat", "codes", "few codes"])
def test_a_forged_hint_fails_with_both_numbers(kit, part):
    class Cheat(kit.Tiny):
        def training_loss(self, batch, step):
            terms = super().training_loss(batch, step)
            if part == "x_hat":
                return forged(terms, x_hat=batch.target.clone())
            if part == "few codes":
                n = batch.n_tokens
                empty = torch.zeros(0, dtype=torch.long)
                return forged(terms, codes=SparseCodes(torch.zeros(0), empty, torch.zeros(n + 1).long(), self.d_sae))
            values = terms.codes.values.detach().reshape(-1, self.config.k)
            latents = (terms.codes.latents.reshape(values.shape) + 1) % self.d_sae
            return forged(terms, codes=SparseCodes.from_topk(values, latents, self.d_sae))

    status, message, _ = ended(kit, Cheat)
    assert status == "failed" and f"LossTerms.{part.split()[-1]} has" in message and "own" in message


def test_the_trajectory_is_the_module_s_own_also_without_hints(kit):
    class Bare(kit.Tiny):
        def training_loss(self, batch, step):
            return forged(super().training_loss(batch, step), codes=None, x_hat=None)

    kit.add("bare", Bare)
    plain, bare = kit.train(), kit.train(kit.cell("bare"))
    assert [(p["fvu"], p["l0"]) for p in plain.trajectory] == [(p["fvu"], p["l0"]) for p in bare.trajectory]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train_flops_per_token": 153}, "a training step did"),
        ({"train_flops_per_token": 0, "train_flops_per_active": 0, "step_flops": 0}, "its Cost declares 0"),
        ({"encode_flops_per_token": 10}, "Cost.encode_flops_per_token is 10"),
        ({"n_parameters": 10}, "Cost.n_parameters is 10, but the module has 264"),
        ({"stored_bytes": 40}, "Cost.stored_bytes is 40, but the module has 1,056"),
    ],
)
def test_a_cost_that_declares_too_little_fails_with_both_numbers(kit, changes, line):
    spec = kit.spec_of("cheat", kit.Tiny)
    assert isinstance(spec, ArchitectureSpec)
    cheap = dataclasses.replace(spec, cost=lambda config, site: dataclasses.replace(spec.cost(config, site), **changes))
    registered = dataclasses.replace(kit.catalog.architectures["tiny"], spec=cheap)
    kit.catalog.architectures["cheat"] = registered
    outcome = kit.train(kit.cell("cheat"))
    assert outcome.status == "failed" and line in outcome.error["message"]


def test_methods_may_not_understate_sizes(kit):
    class Small(kit.Tiny):
        def stored_bytes(self):
            return 100

    status, message, _ = ended(kit, Small)
    assert status == "failed" and "stored_bytes() is 100, but the module has 1,056" in message
