"""What the meter counts by formula, held against what torch counts when it happens."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from saebench.api import ActivationBatch, Site, StepInfo
from saebench.api.specs import resolve
from saebench.host import load_catalog
from saebench.nn import loss_and_grad
from saebench.nn.kernels import backends

D_IN, D_SAE, BATCH = 64, 1024, 128
CONFIGS = {
    "topk": {"k": 8},
    "batch-topk": {"k": 8},
    "jumprelu": {"target_l0": 8.0},
    "relu-l1": {},
}


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


@pytest.mark.parametrize("name", CONFIGS)
def test_dense_terms_are_those_that_torch_counts(catalog, name):
    """The encoder product is the one dense product of a step: the backward pass touches active latents alone."""
    spec = catalog.architecture(name).spec
    config = spec.config(d_sae=D_SAE, **CONFIGS[name])
    site = Site(D_IN, D_IN)
    cost = spec.cost(config, site)
    generator = torch.Generator().manual_seed(0)
    module = resolve(spec.build)(config, site=site, generator=generator)
    x = torch.randn(2048, D_IN, generator=generator)
    module.to(x.device).init_from_data(x, generator)
    batch = ActivationBatch(x[:BATCH], x[:BATCH])
    product = 2 * D_IN * D_SAE * BATCH
    with backends.force("plain"):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.encode(batch.x)
        assert counter.get_total_flops() == product
        assert BATCH * cost.encode_flops_per_token == pytest.approx(product, rel=0.02)
        with FlopCounterMode(display=False) as counter:
            terms = loss_and_grad(module, batch, StepInfo(0, 0.0, 0, 100 * BATCH))
    n_active = int(torch.count_nonzero(terms.codes.values))
    assert 0 < n_active <= D_SAE * BATCH
    dense, active = BATCH * cost.train_flops_per_token, n_active * cost.train_flops_per_active
    assert dense == pytest.approx(product, rel=0.02)
    assert product <= counter.get_total_flops() <= dense + active


def test_a_wrapper_costs_its_base_and_a_little_more(catalog):
    base_spec, spec = catalog.architecture("topk").spec, catalog.architecture("ssae").spec
    site = Site(D_IN, D_IN)
    base = base_spec.cost(base_spec.config(d_sae=D_SAE, k=8), site)
    whole = spec.cost(spec.config(), site, base)
    assert dataclasses.replace(whole, train_flops_per_token=base.train_flops_per_token) == base
    assert 1 < whole.train_flops_per_token / base.train_flops_per_token < 1.001
