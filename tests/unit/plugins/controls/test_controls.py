"""Floors and ceilings with known answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saebench.api import SuiteError
from saebench.nn import Rescaled, stored_bytes
from saebench_plugins.controls.plugin import saebench_architectures
from saebench_plugins.expander.plugin import saebench_architectures as expander
from saebench_plugins.topk.plugin import saebench_architectures as topk

SPECS = {spec.name: spec for spec in saebench_architectures()}
CONFIG = {"d_sae": 32, "k": 4}


def fitted(bench: Any, name: str, seed: int = 0, **config: int) -> Any:
    sae = bench.build(SPECS[name], {**CONFIG, **config}, seed=seed)
    if hasattr(sae, "fit"):
        sae.fit(iter(bench.data().split(100)), bench.generator())
    return sae


def test_all_are_tagged_control() -> None:
    assert all("control" in spec.tags for spec in SPECS.values())


@pytest.mark.parametrize("name", ["control-random", "control-pca", "control-identity"])
def test_state_is_complete_and_nothing_is_trainable(bench: Any, name: str) -> None:
    sae, fresh = fitted(bench, name), bench.build(SPECS[name], CONFIG, seed=3)
    fresh.load_state_dict(sae.state_dict(), strict=True)
    x = bench.data(64, seed=1)
    assert torch.equal(sae.decode(sae.encode(x)), fresh.decode(fresh.encode(x)))
    assert not list(sae.parameters())
    spec = SPECS[name]
    assert stored_bytes(sae) == spec.cost(spec.config(**CONFIG), bench.site).stored_bytes
    assert torch.equal(fitted(bench, name).decode(sae.encode(x)), sae.decode(sae.encode(x)))


def test_identity_is_exact(bench: Any) -> None:
    sae, x = fitted(bench, "control-identity"), bench.data(64)
    assert torch.equal(sae.decode(sae.encode(x)), x)
    assert (sae.d_sae, sae.decoder_directions().tolist()) == (16, torch.eye(16).tolist())
    outer = Rescaled(sae, 3.0)
    torch.testing.assert_close(outer.decode(outer.encode(x)), x)


def test_pca_is_the_best_linear_map_of_rank_k(bench: Any) -> None:
    x = bench.data()
    sae = fitted(bench, "control-pca")
    singular = torch.linalg.svdvals((x - x.mean(0)).double())
    expected = float(singular[4:].pow(2).sum() / singular.pow(2).sum())
    fvu, l0 = bench.score(sae, x)
    assert fvu == pytest.approx(expected, rel=1e-4)
    assert l0 == 4
    torch.testing.assert_close(sae.W_dec @ sae.W_dec.T, torch.eye(16), atol=1e-5, rtol=0)
    assert bench.score(fitted(bench, "control-pca", k=16), x)[0] == pytest.approx(0, abs=1e-9)


def test_pca_has_no_more_components_than_coordinates(bench: Any) -> None:
    sae = fitted(bench, "control-pca", d_sae=500, k=100)
    assert (sae.d_sae, sae.k) == (16, 16)
    assert fitted(bench, "control-pca", d_sae=3, k=2).W_dec.shape == (3, 16)


def test_pca_without_data_says_so(bench: Any) -> None:
    with pytest.raises(SuiteError, match="no activations"):
        bench.build(SPECS["control-pca"], CONFIG).fit(iter(()), bench.generator())


def test_random_directions_lie_between_the_mean_and_a_trained_sae(bench: Any) -> None:
    x = bench.data()
    random = bench.score(fitted(bench, "control-random"), x)
    trained = bench.train(bench.start(bench.build(topk()[0], CONFIG), x), x)
    assert bench.score(trained, x)[0] < random[0] < 1
    assert random[1] <= 4


def test_random_gain_is_least_squares(bench: Any) -> None:
    sae, x = fitted(bench, "control-random"), bench.data()
    best = bench.score(sae, x)[0]
    for factor in (0.95, 1.05):
        gain = float(sae.gain)
        sae.gain.fill_(gain * factor)
        assert bench.score(sae, x)[0] > best
        sae.gain.fill_(gain)


@pytest.mark.parametrize(("base_spec", "config"), [(topk()[0], CONFIG), (expander()[0], {**CONFIG, "degree": 5})])
def test_permuted_keeps_the_codes_and_spoils_the_reconstruction(
    bench: Any, base_spec: Any, config: dict[str, Any]
) -> None:
    x = bench.data()
    parent = bench.train(bench.start(bench.build(base_spec, config), x), x)
    good = bench.score(parent, x)[0]
    base = bench.build(base_spec, config, seed=8)
    base.load_state_dict(parent.state_dict())
    sae = bench.build(SPECS["control-permuted"], CONFIG, base=base)
    with torch.no_grad():
        codes, theirs = sae.encode(x), parent.encode(x)
        assert torch.equal(codes.to_dense(), theirs.to_dense())
        bias = parent.decode(theirs) - theirs.to_dense() @ parent_rows(parent)
        torch.testing.assert_close(
            sae.decode(codes), codes.to_dense() @ sae.decoder_directions() + bias, atol=1e-5, rtol=1e-4
        )
    assert bench.score(sae, x)[0] > 3 * good
    assert sorted(sae.permutation.tolist()) == list(range(32))
    base_cost = base_spec.cost(base_spec.config(**config), bench.site)
    spec = SPECS["control-permuted"]
    assert stored_bytes(sae) == spec.cost(spec.config(**CONFIG), bench.site, base_cost).stored_bytes
    assert sae.facts()["moved_latents"] > 16
    assert not any(p.requires_grad for p in sae.parameters())

    fresh = bench.build(SPECS["control-permuted"], CONFIG, seed=4, base=bench.build(base_spec, config, seed=5))
    fresh.load_state_dict(sae.state_dict(), strict=True)
    assert torch.equal(fresh.decode(codes), sae.decode(codes))


def parent_rows(parent: Any) -> torch.Tensor:
    found: torch.Tensor = (
        parent.decoder_directions() if hasattr(parent, "decoder_directions") else parent.W_dec.detach()
    )
    return found


def test_sizes_are_checked(bench: Any) -> None:
    spec = SPECS["control-random"]
    assert [p.key for p in spec.check(spec.config(d_sae=32, k=0), bench.site)] == ["k"]
    assert spec.cost(spec.config(d_sae=32, k=99), bench.site).expected_l0 == 32
