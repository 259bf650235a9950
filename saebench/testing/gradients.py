"""The check that an architecture's own gradients are those of its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from saebench.api import ActivationBatch, AfterStep, LossTerms, StepInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FIRST = StepInfo(index=0, progress=0.0, tokens_seen=0, tokens_allotted=10_000)
LATER = StepInfo(index=1, progress=0.5, tokens_seen=1, tokens_allotted=2)
"""After one token of two: what has not fired counts as dead, and penalties are past their warm-up."""
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
"""How far a gradient may lie from autograd's, as a fraction of its norm. Float32 only where a module cannot be cast."""
BATCH = 64


def check_gradients(build: Callable[[], Any], x: Tensor) -> None:
    """Holds `loss_and_grad` against autograd through `training_loss`: at the start and later, with and without token weights.

    Args:
        build: Makes the module afresh at each call, ready to be trained.
        x: `[n, d_in]` activations, n > 64.

    Raises:
        AssertionError: They differ; the message says where.
    """
    import torch

    for step in (FIRST, LATER):
        for weighted in (False, True):
            try:
                _compare(_at(build, x, step), x, step, weighted, torch.float64)
            except RuntimeError:  # some tensor of the module stays float32
                _compare(_at(build, x, step), x, step, weighted, torch.float32)


def _at(build: Callable[[], Any], x: Tensor, step: StepInfo) -> Any:
    """The module as it stands at a step."""
    import torch

    sae = build()
    if step.index and hasattr(sae, "after_step"):
        one = ActivationBatch(x[BATCH : BATCH + 1], x[BATCH : BATCH + 1])
        with torch.no_grad():
            terms = sae.training_loss(one, FIRST)
            sae.after_step(AfterStep(one, terms, FIRST, torch.Generator(), lambda parameter, rows: None))
    return sae


def _compare(sae: Any, x: Tensor, step: StepInfo, weighted: bool, dtype: torch.dtype) -> None:
    import torch

    from saebench.nn import autograd_loss_and_grad
    from saebench.nn.kernels import backends

    sae.to(dtype)
    batch = ActivationBatch(x[:BATCH].to(dtype), x[:BATCH].to(dtype))
    token_weights = (lambda losses: (losses / losses.mean()).softmax(0)) if weighted else None
    with backends.force("plain"):
        theirs = autograd_loss_and_grad(sae, batch, step, token_weights)
        expected = {name: parameter.grad for name, parameter in sae.named_parameters()}
        for parameter in sae.parameters():  # what stands there already must not matter
            parameter.grad = torch.ones_like(parameter)
        ours = sae.loss_and_grad(batch, step, token_weights)
    near = TOLERANCE[str(dtype).removeprefix("torch.")]
    where = f"in {dtype}, {'with' if weighted else 'without'} token weights, step {step.index}"
    assert isinstance(ours, LossTerms), f"loss_and_grad must return LossTerms, got {type(ours).__name__}"
    assert ours.penalties.keys() == theirs.penalties.keys(), (
        f"loss_and_grad gives penalties {sorted(ours.penalties)}, training_loss {sorted(theirs.penalties)}"
    )
    pairs = {"reconstruction": (ours.reconstruction, theirs.reconstruction)}
    pairs |= {f"penalty '{name}'": (ours.penalties[name], theirs.penalties[name]) for name in theirs.penalties}
    for name, (got, wanted) in pairs.items():
        assert not got.requires_grad, f"loss_and_grad must return its terms detached; {name} is not"
        assert torch.allclose(got, wanted, rtol=near, atol=near), f"loss_and_grad gives another {name} {where}"
    for name, parameter in sae.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"loss_and_grad left {name}.grad empty"
        wanted = torch.zeros_like(parameter) if expected[name] is None else expected[name]
        off, size = float((parameter.grad - wanted).norm()), float(wanted.norm())
        assert off <= near * max(size, 1e-6), (
            f"{name}.grad of loss_and_grad is {off:.3g} away from autograd's, whose norm is {size:.3g}, {where}"
        )
