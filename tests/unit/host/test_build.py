from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from saebench.api import ArchitectureSpec, Cost, PluginError, Site, SparseAutoencoder, SparseCodes, SuiteError
from saebench.api.sae import OPTIONAL_METHODS
from saebench.artifacts import save_checkpoint
from saebench.cells.cell import ArchitectureUse
from saebench.host import Catalog, Registered
from saebench.host.build import architecture_cost, build_module, load_module, load_sae, parse_config
from saebench.host.sae_contract import misspelt_methods, normalise_codes

SITE = Site(4, 4, "layers.0", "layers.0")


@dataclass(frozen=True)
class Config:
    d_sae: int = 6
    widths: tuple[int, ...] = (1, 2)


class Linear(nn.Module):
    def __init__(self, config, site, generator):
        super().__init__()
        self.d_in, self.d_sae, self.config = site.d_in, config.d_sae, config
        self.W_enc = nn.Parameter(torch.randn(config.d_sae, site.d_in, generator=generator))

    def encode(self, x):
        return (x @ self.W_enc.T).relu()

    def decode(self, codes):
        return codes.to_dense() @ self.W_enc

    def training_loss(self, batch, step):
        raise NotImplementedError


@dataclass(frozen=True)
class WrapConfig:
    tilt: float = 1.0


class Wrapper(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.d_in, self.d_sae = base, base.d_in, base.d_sae
        self.encode, self.decode, self.training_loss = base.encode, base.decode, base.training_loss


def cost(config, site, base_cost=None):
    return Cost(1, 2, 3, 4, 5, 6, 7) if base_cost is None else Cost(100 + base_cost.n_parameters, 2, 3, 4, 5, 6, 7)


def catalog_with(**builds):
    catalog = Catalog()

    def add(name, config, build, **more):
        catalog.architectures[name] = Registered(
            ArchitectureSpec(name, "1", config, build, cost, **more), "tests", "0", __name__
        )

    add("linear", Config, lambda config, *, site, generator: Linear(config, site, generator))
    add("wrap", WrapConfig, lambda config, *, site, generator, base: Wrapper(base), wraps=True)
    for name, build in builds.items():
        add(name, Config, build)
    return catalog


def build(catalog, name, base=None, seed=0, parent=None, **config):
    config = config or ({"d_sae": 6, "widths": [1, 2]} if name != "wrap" else {"tilt": 2.0})
    return build_module(
        ArchitectureUse(name, "1", config),
        base,
        site=SITE,
        generator=torch.Generator().manual_seed(seed),
        catalog=catalog,
        parent=parent,
    )


LINEAR = ArchitectureUse("linear", "1", {"d_sae": 6, "widths": [1, 2]})


def meta(**changes):
    return {
        "cell_id": "c",
        "architecture": "linear",
        "version": "1",
        "config": {"d_sae": 6, "widths": [1, 2]},
        "base": None,
        "site": {"d_in": 4, "d_out": 4, "reads": "a", "writes": "a"},
        "d_sae": 6,
        "input_scale": 2.5,
        "tags": [],
        "plugin": {},
        **changes,
    }


def test_lists_of_json_become_tuples():
    spec = catalog_with().architecture("linear").spec
    assert parse_config(spec, json.loads('{"d_sae": 6, "widths": [3, 4]}')) == Config(6, (3, 4))
    with pytest.raises(PluginError, match=r"config key 'depth' is unknown; known: d_sae, widths"):
        parse_config(spec, {"depth": 1})


def test_equal_generators_build_equal_modules_and_a_parent_s_weights_are_copied():
    catalog = catalog_with()
    a, b, other = build(catalog, "linear"), build(catalog, "linear"), build(catalog, "linear", seed=1)
    assert torch.equal(a.W_enc, b.W_enc)
    assert not torch.equal(a.W_enc, other.W_enc)
    assert torch.equal(build(catalog, "linear", seed=1, parent=a).W_enc, a.W_enc)


def test_a_wrapper_gets_its_base_with_the_parent_s_weights():
    catalog = catalog_with()
    parent = build(catalog, "linear", seed=3)
    wrapper = build(catalog, "wrap", LINEAR, parent=parent)
    assert torch.equal(wrapper.base.W_enc, parent.W_enc)
    assert wrapper.base is not parent
    with pytest.raises(PluginError, match="wraps another architecture, and none was given"):
        build(catalog, "wrap")
    with pytest.raises(
        SuiteError, match=r"the parent's weights do not fit architecture 'linear': size mismatch for W_enc"
    ):
        build(catalog, "wrap", LINEAR, parent=build(catalog, "linear", d_sae=5))


def test_the_cost_of_a_wrapper_sees_its_base_s():
    catalog = catalog_with(badcost=lambda *args, **kwargs: None)
    assert architecture_cost(LINEAR, None, SITE, catalog).n_parameters == 1
    assert architecture_cost(ArchitectureUse("wrap", "1", {"tilt": 1.0}), LINEAR, SITE, catalog).n_parameters == 101


def test_a_build_that_still_takes_a_parent_gets_none():
    catalog = catalog_with(
        older=lambda config, *, site, generator, init_from=None, base=None: Linear(config, site, generator)
    )
    parent = build(catalog, "linear", seed=1)
    assert torch.equal(build(catalog, "older", parent=parent, d_sae=6).W_enc, parent.W_enc)


def test_without_a_cost_parameters_are_counted_and_work_is_dense():
    catalog = catalog_with()
    for name, registered in catalog.architectures.items():
        catalog.architectures[name] = replace(registered, spec=replace(registered.spec, cost=None))
    cost = architecture_cost(LINEAR, None, SITE, catalog)
    assert (cost.n_parameters, cost.stored_bytes) == (24, 96)
    assert (cost.train_flops_per_token, cost.encode_flops_per_token, cost.step_flops) == (12 * 24, 2 * 24, 15 * 24)
    assert cost.expected_l0 is None
    assert architecture_cost(ArchitectureUse("wrap", "1", {"tilt": 1.0}), LINEAR, SITE, catalog) == cost
    huge = architecture_cost(ArchitectureUse("linear", "1", {"d_sae": 1 << 40}), None, SITE, catalog)
    assert huge.n_parameters == 1 << 42  # no memory was asked for


def test_a_build_that_reads_values_is_told_to_give_a_cost():
    def reads(config, *, site, generator):
        module = Linear(config, site, generator)
        module.scale = float(module.W_enc.sum())
        return module

    catalog = catalog_with(reads=reads)
    registered = catalog.architectures["reads"]
    catalog.architectures["reads"] = replace(registered, spec=replace(registered.spec, cost=None))
    with pytest.raises(PluginError, match=r"build raised .* Give the ArchitectureSpec a `cost`"):
        architecture_cost(ArchitectureUse("reads", "1", {"d_sae": 6}), None, SITE, catalog)


def test_a_method_that_is_nearly_one_of_ours_is_refused_and_helpers_are_not():
    class Misspelt(Linear):
        def finalise(self, batches):
            pass

        def after_steps(self, after):
            pass

    class Helpers(Linear):
        def finalize(self, batches):
            pass

        def finalized(self):  # near to `finalize`, which is there
            pass

        def encoded(self, x):
            pass

        def _constraint(self):
            pass

        def reconstruction(self, x_hat, target):
            pass

    generator = torch.Generator()
    assert misspelt_methods(Misspelt(Config(), SITE, generator)) == {
        "finalise": "finalize",
        "after_steps": "after_step",
    }
    assert misspelt_methods(Helpers(Config(), SITE, generator)) == {}
    catalog = catalog_with(bad=lambda config, *, site, generator: Misspelt(config, site, generator))
    with pytest.raises(
        PluginError, match=r"Misspelt.finalise is no method that saebench calls. Did you mean 'finalize'"
    ):
        build(catalog, "bad", d_sae=6)


def test_optional_methods_are_those_of_the_protocol_s_docstring():
    text = SparseAutoencoder.__doc__
    listed = set(re.findall(r"`(\w+)\(", text[text.index("Optional") :]))
    assert listed == set(OPTIONAL_METHODS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *a, **k: 5, "build must return a torch.nn.Module, got int"),
        (lambda *a, **k: nn.Linear(4, 4), "without encode, decode, training_loss"),
        (
            lambda config, *, site, generator, **k: Linear(config, Site(3, 3), generator),
            "d_in is 3, but the site has d_in 4",
        ),
        (lambda *a, **k: 1 / 0, "build raised ZeroDivisionError"),
        (lambda config: None, "build raised TypeError"),
    ],
)
def test_a_broken_build_is_named(make, message):
    with pytest.raises(PluginError, match=f"architecture 'broken' 1: .*{message}"):
        build(catalog_with(broken=make), "broken")


def test_parameters_must_be_finite():
    def make(config, *, site, generator, **more):
        module = Linear(config, site, generator)
        module.W_enc.data[2, 1] = float("nan")
        return module

    with pytest.raises(PluginError, match=r"'W_enc' \[6, 4\] with values that are not finite"):
        build(catalog_with(broken=make), "broken")


def test_load_sae_gives_back_weights_in_the_units_of_the_activations(tmp_path):
    catalog = catalog_with()
    module = build(catalog, "linear", seed=4)
    save_checkpoint(tmp_path / "c", module.state_dict(), meta())
    inner, read = load_module(tmp_path / "c", catalog)
    assert torch.equal(inner.W_enc, module.W_enc)
    assert read["cell_id"] == "c"
    sae = load_sae(tmp_path / "c", catalog)
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalise_codes(sae.encode(x), 6).to_dense(), 2.5 * module.encode(x / 2.5).detach())
    expected = 2.5 * module.decode(SparseCodes.from_dense(module.encode(x / 2.5)))
    torch.testing.assert_close(sae.decode(sae.encode(x)), expected.detach())
    assert not any(parameter.requires_grad for parameter in sae.parameters())
    assert not sae.training
    save_checkpoint(tmp_path / "plain", module.state_dict(), meta(input_scale=1.0))
    assert isinstance(load_sae(tmp_path / "plain", catalog), Linear)


def test_a_wrapped_checkpoint_comes_back(tmp_path):
    catalog = catalog_with()
    module = build(catalog, "wrap", LINEAR, seed=4)
    base = {"architecture": "linear", "version": "1", "config": {"d_sae": 6, "widths": [1, 2]}}
    save_checkpoint(tmp_path / "c", module.state_dict(), meta(architecture="wrap", config={"tilt": 2.0}, base=base))
    assert torch.equal(load_module(tmp_path / "c", catalog)[0].base.W_enc, module.base.W_enc)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    catalog = catalog_with()
    tensors = build(catalog, "linear").state_dict()
    save_checkpoint(tmp_path / "more", {**tensors, "theta": torch.zeros(3)}, meta())
    with pytest.raises(PluginError, match=r'more: architecture .linear. 1: .*do not fit.*"theta"'):
        load_sae(tmp_path / "more", catalog)
    save_checkpoint(tmp_path / "less", {}, meta())
    with pytest.raises(PluginError, match="do not fit"):
        load_sae(tmp_path / "less", catalog)
    save_checkpoint(tmp_path / "bare", tensors, {"cell_id": "c"})
    with pytest.raises(SuiteError, match=r"sae\.json: damaged \(KeyError: 'architecture'\)"):
        load_sae(tmp_path / "bare", catalog)
    save_checkpoint(tmp_path / "name", tensors, meta(architecture="linera"))
    with pytest.raises(SuiteError, match="no architecture named 'linera'"):
        load_sae(tmp_path / "name", catalog)


def test_dense_codes_are_converted():
    z = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, -3.0]])
    codes = normalise_codes(z, 3, n_rows=2)
    assert torch.equal(codes.to_dense(), z)
    assert codes.l0().tolist() == [1, 2]


GOOD = SparseCodes(torch.tensor([1.0, 2.0]), torch.tensor([0, 2]), torch.tensor([0, 1, 2]), 3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2], "got list"),
        (torch.zeros(2, 4), r"got a torch.float32 tensor \[2, 4\]"),
        (torch.zeros(3), r"tensor \[3\]"),
        (torch.zeros(2, 3, dtype=torch.long), "torch.int64 tensor"),
        (torch.full((2, 3), float("nan")), "got values that are not finite"),
        (torch.zeros(5, 3), "got 5 rows"),
        (SparseCodes(GOOD.values, GOOD.latents, GOOD.offsets, 4), "codes with d_sae 4"),
        (SparseCodes(GOOD.values, GOOD.latents[:1], GOOD.offsets, 3), r"latents \[1\]"),
        (SparseCodes(GOOD.values, torch.tensor([0, 3]), GOOD.offsets, 3), "latents from 0 to 3"),
        (SparseCodes(GOOD.values, GOOD.latents, torch.tensor([0, 2, 1]), 3), "offsets that do not run from 0 to 2"),
        (SparseCodes(GOOD.values, GOOD.latents.int(), GOOD.offsets, 3), "torch.int32"),
    ],
)
def test_a_breach_of_the_codes_contract_says_what_came(answer, message):
    assert normalise_codes(GOOD, 3, n_rows=2, plugin="'mine'") is GOOD
    with pytest.raises(PluginError, match=rf"'mine': encode must return .*{message}"):
        normalise_codes(answer, 3, n_rows=2, plugin="'mine'")


def test_importing_it_loads_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, saebench.host.build; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
