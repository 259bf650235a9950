"""The check that an architecture's own gradients are those of its loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from saebench.api import ActivationBatch, AfterStep, LossTerms, StepInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FIRST = StepInfo(index=0, progress=0.0, tokens_seen=0, tokens_allotted=10_000)
LATER = StepInfo(index=1, progress=0.5, tokens_seen=1, tokens_allotted=2)
"""After one token of two: what has not fired counts as dead, and penalties are past their warm-up."""
EXACT, SINGLE, SCREENED = 1e-9, 1e-4, 0.02
"""How far a gradient may lie from autograd's, as a fraction of its norm: in float64, in float32, and on back end
`bf16-screen`, where AuxK reads bfloat16 pre-activations of dead latents."""
BATCH = 64


def check_gradients(build: Callable[[], Any], x: Tensor) -> None:
    """Holds `loss_and_grad` against autograd through `training_loss`: at the start and later, with and without token
    weights.

    Once in float64, where a millionth shows, and as it trains: in float32, on every back end that a machine may take.

    Args:
        build: Makes the module afresh at each call, ready to be trained; equal bits each time.
        x: `[n, d_in]` activations, n > 64.

    Raises:
        AssertionError: They differ; the message says where.
    """
    import torch

    from saebench.nn.kernels import backends

    for step in (FIRST, LATER):
        for weighted in (False, True):
            try:
                theirs = _Taken(_at(build, x, step), x, step, weighted, torch.float64, by_hand=False)
                _compare(_Taken(_at(build, x, step), x, step, weighted, torch.float64, by_hand=True), theirs)
            except RuntimeError:  # some tensor of the module stays float32
                theirs = _Taken(_at(build, x, step), x, step, weighted, torch.float32, by_hand=False)
            for backend in {backends.current(), "bf16-screen", "plain"}:
                with backends.force(backend):
                    _compare(_Taken(_at(build, x, step), x, step, weighted, torch.float32, by_hand=True), theirs)


def _at(build: Callable[[], Any], x: Tensor, step: StepInfo) -> Any:
    """The module as it is at a step."""
    import torch

    sae = build()
    if step.index and hasattr(sae, "after_step"):
        one = ActivationBatch(x[BATCH : BATCH + 1], x[BATCH : BATCH + 1])
        with torch.no_grad():
            terms = sae.training_loss(one, FIRST)
            sae.after_step(AfterStep(one, terms, FIRST, torch.Generator(), lambda parameter, rows: None))
    return sae


class _Taken:
    """The gradients of one step: by hand on the machine's own back end, or by autograd on the plain one."""

    def __init__(
        self, sae: Any, x: Tensor, step: StepInfo, weighted: bool, dtype: torch.dtype, *, by_hand: bool
    ) -> None:
        import torch

        from saebench.nn import autograd_loss_and_grad
        from saebench.nn.kernels import backends

        self.sae = sae
        sae.to(dtype)
        batch = ActivationBatch(x[:BATCH].to(dtype), x[:BATCH].to(dtype))
        token_weights = (lambda losses: (losses / losses.mean()).softmax(0)) if weighted else None
        backend = backends.current(x.device, dtype) if by_hand else "plain"
        self.near = EXACT if dtype == torch.float64 else SCREENED if backend == "bf16-screen" else SINGLE
        self.where = (
            f"in {dtype} on back end {backend}, {'with' if weighted else 'without'} token weights, step {step.index}"
        )
        if by_hand:
            for parameter in sae.parameters():  # gradients of an earlier step must not matter
                parameter.grad = torch.ones_like(parameter)
        with backends.force(backend):
            take = sae.loss_and_grad if by_hand else partial(autograd_loss_and_grad, sae)
            self.terms: LossTerms = take(batch, step, token_weights)


def _compare(ours: _Taken, theirs: _Taken) -> None:
    import torch

    near, where, terms = ours.near, ours.where, ours.terms
    assert isinstance(terms, LossTerms), f"loss_and_grad must return LossTerms, got {type(terms).__name__}"
    assert terms.penalties.keys() == theirs.terms.penalties.keys(), (
        f"loss_and_grad gives penalties {sorted(terms.penalties)}, training_loss {sorted(theirs.terms.penalties)}"
    )
    pairs = {"reconstruction": (terms.reconstruction, theirs.terms.reconstruction)}
    pairs |= {f"penalty '{name}'": (terms.penalties[name], theirs.terms.penalties[name]) for name in terms.penalties}
    for name, (got, expected) in pairs.items():
        assert not got.requires_grad, f"loss_and_grad must return its terms detached; {name} is not"
        same = torch.allclose(got.to(expected.dtype), expected, rtol=near, atol=near)
        assert same, f"loss_and_grad gives another {name} {where}"
    reference = dict(theirs.sae.named_parameters())
    for name, parameter in ours.sae.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"loss_and_grad left {name}.grad empty"
        other = reference[name]
        expected = torch.zeros_like(other) if other.grad is None else other.grad
        off, size = float((parameter.grad.to(expected.dtype) - expected).norm()), float(expected.norm())
        assert off <= near * max(size, 1e-6), (
            f"{name}.grad of loss_and_grad is {off:.3g} away from autograd's, whose norm is {size:.3g}, {where}"
        )
