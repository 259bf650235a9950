"""Rules of what is built: the spec, the module, its sizes, its random numbers, its price."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from saebench.cells.cell import ArchitectureUse
from saebench.host import Catalog, Registered
from saebench.host.build import architecture_cost
from saebench.host.fitting import misshapen_spec
from saebench.host.sae_contract import broken_contract
from saebench.testing.architecture.case import FIRST, Case
from saebench.testing.check import Rule, Skip, global_random_untouched

BYTES_APART = 1024
"""How far `Cost.stored_bytes` may lie from the state dict beside a hundredth of it: scalars are nobody's concern."""


def spec_is_well_formed(case: Case) -> None:
    """Its fields have the declared types; its config is a frozen dataclass."""
    if wrong := misshapen_spec(case.spec):
        raise AssertionError(wrong)
    assert dataclasses.is_dataclass(case.spec.config), "config must be a dataclass"
    assert case.spec.config.__dataclass_params__.frozen, "config must be a frozen dataclass"  # type: ignore[attr-defined]
    problems = list(case.spec.check(case.config, case.site))
    assert not problems, f"check refuses the config that it is tried with: {problems[0].key}: {problems[0].message}"


def is_an_sae(case: Case) -> None:
    """`build` gives a module with the required methods, and none that is misspelt."""
    wrong = broken_contract(case.build(prepared=False), case.d_in)
    assert wrong is None, wrong


def shapes(case: Case) -> None:
    """Of codes and reconstruction."""
    import torch

    sae = case.ready()
    x = case.x[:32]
    x_hat = sae.decode(case.codes(sae, x))
    assert x_hat.shape == x.shape, f"decode gave {tuple(x_hat.shape)}, needed {tuple(x.shape)}"
    assert torch.isfinite(x_hat).all(), "the reconstruction is not finite"


def everything_is_float32(case: Case) -> None:
    """Parameters, codes and reconstructions of float32 activations."""
    import torch

    sae = case.ready()
    for name, parameter in sae.named_parameters():
        assert parameter.dtype == torch.float32, f"parameter {name} is {parameter.dtype}"
    codes = case.codes(sae, case.x[:8])
    assert codes.values.dtype == torch.float32, f"codes are {codes.values.dtype}"
    x_hat = sae.decode(codes)
    assert x_hat.dtype == torch.float32, f"the reconstruction is {x_hat.dtype}"


def fits_every_width(case: Case) -> None:
    """Activations narrower and wider than the dictionary."""
    for d_in in (max(2, case.build(prepared=False).d_sae // 2), 2 * case.build(prepared=False).d_sae):
        other = case.resized(d_in)
        if case.base is not None:
            raise Skip("a wrapper has its base's width")
        if list(case.spec.check(case.config, other.site)):
            continue
        sae = other.build()
        wrong = broken_contract(sae, d_in)
        assert wrong is None, wrong
        x_hat = sae.decode(other.codes(sae, other.x[:8]))
        assert x_hat.shape == (8, d_in), f"with d_in {d_in}, decode gave {tuple(x_hat.shape)}, needed {(8, d_in)}"


def draws_from_the_given_generator(case: Case) -> None:
    """No call uses a process-wide random generator. One that raises is another rule's matter."""
    import torch

    sae: Any = None

    def made() -> None:
        nonlocal sae
        sae = case.build(prepared=False)

    def prepared() -> None:
        case.prepare(sae, torch.Generator().manual_seed(1))

    def trained() -> None:
        if any(parameter.requires_grad for parameter in sae.parameters()):
            case.train(sae, 2)

    def loss() -> None:
        sae.training_loss(case.batch(), FIRST)

    def asked() -> None:
        sae.decode(case.codes(sae, case.x[:32]))

    def finalised() -> None:
        if hasattr(sae, "finalize"):
            sae.finalize(iter([case.x.clone()]))

    calls: dict[str, Callable[[], None]] = {
        "build": made,
        "init_from_data or fit": prepared,
        "encode or decode": asked,
        "training_loss": loss,
        "a training step": trained,
        "finalize": finalised,
    }
    for what, call in calls.items():
        with global_random_untouched(what):
            try:
                call()
            except Exception as error:
                raise Skip(f"{what} raised {type(error).__name__}: see the other rules") from error


def same_seed_same_bits(case: Case) -> None:
    """Two builds, and two trainings, of one seed."""
    import torch

    def trained() -> Any:
        try:
            return case.trained(3)
        except Exception as error:
            raise Skip(f"training raised {type(error).__name__}: see the other rules") from error

    def built() -> Any:
        return case.build(3)

    for what, make in (("builds", built), ("trainings", trained)):
        first, second = make().state_dict(), make().state_dict()
        for name in first:
            assert torch.equal(first[name], second[name]), f"{name} differs between two {what} of one seed"


def seeds_matter(case: Case) -> None:
    """Another seed gives other weights."""
    import torch

    if "control" in case.spec.tags:
        raise Skip("tagged control")
    if case.base is not None:
        raise Skip("a wrapper's weights may be its base's")
    first, second = case.build(3).state_dict(), case.build(4).state_dict()
    assert any(not torch.equal(first[name], second[name]) for name in first), "two seeds give one set of weights"


def builds_without_memory(case: Case) -> None:
    """At a real width, on torch's meta device, as `plan` builds it."""
    import torch

    if case.base is not None:
        raise Skip("a wrapper is built around its base")
    other = case.resized(case.d_in)
    try:
        with torch.device("meta"):
            other.build(prepared=False)
    except Exception as error:
        if case.spec.cost is not None:
            raise Skip("it reads values while it is built, and its spec has a cost") from error
        raise


def cost_is_the_modules(case: Case) -> None:
    """Parameters and bytes."""
    spec = case.spec
    if spec.wraps:
        raise Skip("a wrapper's cost needs its base's")
    for one in (case, case.resized(2 * case.d_in)):
        if list(spec.check(one.config, one.site)):
            continue
        config = {field.name: getattr(one.config, field.name) for field in dataclasses.fields(one.config)}
        catalog = Catalog(architectures={spec.name: Registered(spec, "", "", "")})
        cost = architecture_cost(ArchitectureUse(spec.name, spec.version, config), None, one.site, catalog)
        sae = one.build()
        found = sum(p.numel() for p in sae.parameters() if p.requires_grad)
        where = f"at d_in {one.d_in}"
        assert cost.n_parameters == found, f"cost says {cost.n_parameters} parameters {where}, the module has {found}"
        stored = sum(tensor.numel() * tensor.element_size() for tensor in sae.state_dict().values())
        assert abs(cost.stored_bytes - stored) <= BYTES_APART + stored // 100, (
            f"cost says {cost.stored_bytes} stored bytes {where}, the state dict has {stored}"
        )


RULES: tuple[Rule[Case], ...] = (
    Rule(
        "the spec is well formed, and its config a frozen dataclass",
        spec_is_well_formed,
        "Write @dataclass(frozen=True) above the config, and give each field of the spec the type that "
        "docs/plugin-guide.md lists.",
    ),
    Rule(
        "the module is an SAE, and no method is misspelt",
        is_an_sae,
        "build(config, *, site, generator) returns a torch.nn.Module with d_in, d_sae, encode, decode and "
        "training_loss. Begin the names of your own helpers with '_'.",
        (spec_is_well_formed,),
    ),
    Rule(
        "encode and decode have the right shapes",
        shapes,
        "encode gives SparseCodes or a dense [B, d_sae]; decode gives [B, d_in].",
        (is_an_sae,),
    ),
    Rule(
        "parameters, codes and reconstructions are float32",
        everything_is_float32,
        "Make parameters and results in x's type; torch.zeros(...) is float32, numpy arrays and .double() are float64.",
        (is_an_sae,),
    ),
    Rule(
        "it fits every width, below and above that of the activations",
        fits_every_width,
        "Take the width from site.d_in and d_sae from the config; neither is a multiple of the other.",
        (is_an_sae, shapes),
    ),
    Rule(
        "random numbers come from the given generator",
        draws_from_the_given_generator,
        "Pass `generator=` to torch.randn and the like: build, init_from_data and fit are given one, after_step has "
        "after.generator. encode, decode and training_loss draw nothing.",
        (is_an_sae,),
    ),
    Rule(
        "one seed gives one set of bits",
        same_seed_same_bits,
        "Keep no state outside the module, and take random numbers from the generator alone.",
        (is_an_sae, everything_is_float32, draws_from_the_given_generator),
    ),
    Rule(
        "another seed gives other weights",
        seeds_matter,
        "Draw the first weights from the generator that build is given.",
        (is_an_sae, draws_from_the_given_generator),
    ),
    Rule(
        "it is built without memory",
        builds_without_memory,
        "Give the ArchitectureSpec a `cost`, or build without reading values of tensors (.item(), nonzero, if x > 0).",
        (is_an_sae,),
    ),
    Rule(
        "cost counts the parameters and the bytes",
        cost_is_the_modules,
        "Leave `cost` out: parameters are then counted. Or use saebench.nn.cost.",
        (is_an_sae, everything_is_float32, fits_every_width, builds_without_memory),
    ),
)
