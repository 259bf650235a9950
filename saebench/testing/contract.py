"""What every architecture must do, as checks that a plugin author runs in one line:

from saebench.testing import check_architecture
def test_contract():
    assert not [check for check in check_architecture(SPEC, CONFIG) if check.failed]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saebench.api import ActivationBatch, ArchitectureSpec, LossTerms, Site, SparseCodes, StepInfo
from saebench.api.errors import contained, describe, said
from saebench.api.specs import resolve
from saebench.cells.cell import ArchitectureUse, TrainSettings
from saebench.host import Catalog, Registered
from saebench.host.build import architecture_cost
from saebench.host.sae_contract import broken_contract
from saebench.testing.gradients import check_gradients

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEARN_STEPS, LEARN_BATCH, LEARN_RATE = 60, 256, 2e-3
STEP = StepInfo(index=0, progress=0.0, tokens_seen=0, tokens_allotted=10_000)


@dataclass(frozen=True)
class Check:
    """One finding. `message` says what was found where it failed, or why it was skipped."""

    name: str
    status: str
    message: str = ""

    @property
    def failed(self) -> bool:
        """True when the contract is broken."""
        return self.status == "fail"


class _Skip(Exception):
    """A check that does not apply."""


def example_activations(n: int, d_in: int, seed: int = 0) -> Tensor:
    """`[n, d_in]` float32: sparse features in superposition plus a mean and noise, scaled so that E||x||^2 = d_in."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(4 * d_in, d_in, generator=generator), dim=1)
    active = (torch.rand(n, 4 * d_in, generator=generator) < 0.02).float() * torch.rand(
        n, 4 * d_in, generator=generator
    )
    x = active @ features + 0.1 + 0.01 * torch.randn(n, d_in, generator=generator)
    return x / (x.square().sum(1).mean() / d_in).sqrt()


class _Case:
    """One architecture with one config, built on demand."""

    def __init__(
        self, spec: ArchitectureSpec, config: Any, d_in: int, base: Callable[[], torch.nn.Module] | None
    ) -> None:
        self.spec, self.config, self.d_in, self.base = spec, config, d_in, base
        self.site = Site(d_in, d_in, "example", "example")
        self.x = example_activations(1024, d_in)

    def build(self, seed: int = 0, *, prepared: bool = True) -> Any:
        import torch

        generator = torch.Generator().manual_seed(seed)
        more = {"base": self.base()} if self.base else {}
        sae: Any = resolve(self.spec.build)(self.config, site=self.site, generator=generator, **more)
        if prepared and hasattr(sae, "init_from_data"):
            sae.init_from_data(self.x, generator)
        if hasattr(sae, "fit"):
            sae.fit([self.x], generator)
        return sae

    def batch(self, rows: slice = slice(0, 64)) -> ActivationBatch:
        return ActivationBatch(self.x[rows], self.x[rows])

    def codes(self, sae: Any, x: Tensor) -> SparseCodes:
        answer = sae.encode(x)
        return answer if isinstance(answer, SparseCodes) else SparseCodes.from_dense(answer)


def _config_is_frozen(case: _Case) -> None:
    assert dataclasses.is_dataclass(case.spec.config), "config must be a dataclass"
    assert case.spec.config.__dataclass_params__.frozen, "config must be a frozen dataclass"  # type: ignore[attr-defined]


def _is_an_sae(case: _Case) -> None:
    wrong = broken_contract(case.build(prepared=False), case.d_in)
    assert wrong is None, wrong


def _cost_counts(case: _Case) -> None:
    spec = case.spec
    if spec.wraps:
        raise _Skip("a wrapper's cost needs its base's")
    config = {field.name: getattr(case.config, field.name) for field in dataclasses.fields(case.config)}
    catalog = Catalog(architectures={spec.name: Registered(spec, "", "", "")})
    cost = architecture_cost(ArchitectureUse(spec.name, spec.version, config), None, case.site, catalog)
    found = sum(p.numel() for p in case.build().parameters() if p.requires_grad)
    assert cost.n_parameters == found, f"cost says {cost.n_parameters} parameters, the module has {found}"
    assert cost.train_flops_per_token >= 0 and cost.stored_bytes > 0, (
        "FLOPs must not be negative, stored bytes must be positive"
    )


def _same_seed_same_bits(case: _Case) -> None:
    import torch

    state = torch.random.get_rng_state()
    first, second = case.build(3).state_dict(), case.build(3).state_dict()
    assert torch.equal(state, torch.random.get_rng_state()), (
        "build used torch's global generator; use the one it is given"
    )
    for name in first:
        assert torch.equal(first[name], second[name]), f"{name} differs between two builds of one seed"


def _shapes(case: _Case) -> None:
    import torch

    sae = case.build()
    x = case.x[:32]
    codes = case.codes(sae, x)
    assert codes.n_rows == 32 and codes.d_sae == sae.d_sae, (
        f"encode gave {codes.n_rows} rows of {codes.d_sae} latents, needed 32 of {sae.d_sae}"
    )
    if codes.latents.numel():
        assert int(codes.latents.min()) >= 0 and int(codes.latents.max()) < sae.d_sae, "a latent id is out of range"
    x_hat = sae.decode(codes)
    assert x_hat.shape == x.shape, f"decode gave {tuple(x_hat.shape)}, needed {tuple(x.shape)}"
    assert torch.isfinite(x_hat).all(), "the reconstruction is not finite"


def _row_independent(case: _Case) -> None:
    import torch

    if "batch_coupled" in case.spec.tags:
        raise _Skip("tagged batch_coupled")
    sae = case.build()
    together = sae.decode(case.codes(sae, case.x[:16]))
    alone = torch.cat([sae.decode(case.codes(sae, case.x[i : i + 1])) for i in range(16)])
    assert torch.allclose(together, alone, atol=1e-4), "a token's codes depend on the batch it is in"


def _loss_and_gradients(case: _Case) -> None:
    import torch

    sae = case.build()
    if not any(p.requires_grad for p in sae.parameters()):
        raise _Skip("nothing has a gradient")
    terms = sae.training_loss(case.batch(), STEP)
    assert isinstance(terms, LossTerms), f"training_loss must return LossTerms, got {type(terms).__name__}"
    assert terms.reconstruction.shape == (64,), (
        f"reconstruction must be one loss a token [64], got {tuple(terms.reconstruction.shape)}"
    )
    loss = terms.reconstruction.mean() + sum(terms.penalties.values(), torch.zeros(()))
    assert torch.isfinite(loss), "the loss is not finite"
    loss.backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in sae.parameters()), (
        "no parameter received a gradient"
    )


def _gradients_by_hand(case: _Case) -> None:
    if not hasattr(case.build(), "loss_and_grad"):
        raise _Skip("no loss_and_grad: autograd does it")
    check_gradients(case.build, case.x)


def _learns(case: _Case) -> None:
    import torch

    from saebench.train.step import Trainer

    sae = case.build()
    if not any(p.requires_grad for p in sae.parameters()):
        raise _Skip("nothing has a gradient")

    def error() -> float:
        with torch.no_grad():
            return float((sae.decode(case.codes(sae, case.x)) - case.x).square().sum(1).mean())

    before, defaults, total = error(), case.spec.train, LEARN_STEPS * LEARN_BATCH
    settings = TrainSettings(
        LEARN_BATCH, LEARN_RATE, defaults.betas, defaults.eps, defaults.clip, defaults.warmup, defaults.decay, "none"
    )
    trainer = Trainer(sae.train(), settings, torch.Generator().manual_seed(1), case.spec.name)
    for index in range(LEARN_STEPS):
        start, seen = index * LEARN_BATCH % len(case.x), index * LEARN_BATCH
        trainer.step(case.batch(slice(start, start + LEARN_BATCH)), StepInfo(index, seen / total, seen, total))
    sae.eval()
    if hasattr(sae, "finalize"):
        sae.finalize([case.x])
    after = error()
    assert after < before or after < 0.05 * case.d_in, (
        f"{LEARN_STEPS} steps of training did not lower the error: {before:.4g} before, {after:.4g} after"
    )


def _round_trip(case: _Case) -> None:
    import torch

    sae, other = case.build(0), case.build(1, prepared=False)
    if hasattr(sae, "finalize"):
        sae.finalize([case.x])
    other.load_state_dict(sae.state_dict(), strict=True)
    ours, theirs = sae.decode(case.codes(sae, case.x[:32])), other.decode(case.codes(other, case.x[:32]))
    assert torch.equal(ours, theirs), "saving and loading the state dict changes the reconstruction"


def _directions(case: _Case) -> None:
    import torch

    sae = case.build()
    for which, name in (("decoder_directions", "W_dec"), ("encoder_directions", "W_enc")):
        rows = getattr(sae, which)() if hasattr(sae, which) else getattr(sae, name, None)
        assert rows is not None, f"neither {which}() nor {name} is there"
        assert rows.shape == (sae.d_sae, case.d_in), f"{which} are {tuple(rows.shape)}, needed {(sae.d_sae, case.d_in)}"
        assert torch.isfinite(rows).all(), f"{which} are not finite"


CHECKS: tuple[tuple[str, Callable[[_Case], None]], ...] = (
    ("config is a frozen dataclass", _config_is_frozen),
    ("the module is an SAE, and no method is misspelt", _is_an_sae),
    ("cost counts the parameters", _cost_counts),
    ("one seed gives one set of bits, from the given generator", _same_seed_same_bits),
    ("encode and decode have the right shapes", _shapes),
    ("a token's codes do not depend on its batch", _row_independent),
    ("the loss is per token, finite, and has gradients", _loss_and_gradients),
    ("gradients by hand are those of the loss", _gradients_by_hand),
    ("training lowers the error", _learns),
    ("saving and loading changes nothing", _round_trip),
    ("directions are [d_sae, d_in]", _directions),
)


def _run(case: _Case) -> Iterator[Check]:
    for name, check in CHECKS:
        try:
            with contained():
                check(case)
        except _Skip as reason:
            yield Check(name, "skip", str(reason))
        except Exception as error:  # noqa: BLE001 - a plugin's own code
            yield Check(
                name,
                "fail",
                describe(error) if not isinstance(error, AssertionError) else said(error),
            )
        else:
            yield Check(name, "pass")


def check_architecture(
    spec: ArchitectureSpec, config: Any, *, d_in: int = 16, base: Callable[[], torch.nn.Module] | None = None
) -> Sequence[Check]:
    """Runs every check on one architecture.

    Args:
        spec: The architecture.
        config: An instance of `spec.config` with a small `d_sae` (32 or so).
        d_in: Width of the example activations.
        base: For wrappers: makes the module that is wrapped, afresh at each call.

    Returns:
        One `Check` per rule; none of them failed when the contract holds.
    """
    return tuple(_run(_Case(spec, config, d_in, base)))
