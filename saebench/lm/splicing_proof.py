"""Proof that losses under an edit can be trusted at a hookpoint, made on real token ids before the first number.

A model may write into what a module put out, read it by another way, keep state from one forward to the next or roll
dice. All of this shows when the clean activation is put in its own place: then the logits must be the clean ones, bit
for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench.api.errors import SuiteError
from saebench.base.random import generator
from saebench.lm.hooked_forward import HookedForward

PROOF_ROWS = 2
"""Sequences it is made on. In-place writes and repeated calls do not depend on their number."""
_ALTERNATIVES = 4
_NOT_FINITE = "the model's logits are not finite"


@dataclass(frozen=True)
class Proof:
    """What was shown at a hookpoint: clean logits, exactly, with the clean activation in its own place.

    Attributes:
        sequences, tokens: Shape of the ids it was shown on.
        short: Whether skipping the blocks before it gives the same bits too.
    """

    sequences: int
    tokens: int
    short: bool


def prove(forward: HookedForward, ids: Tensor) -> Proof:
    """Shows that splicing is exact at the hookpoint on the first rows of `ids [S, T]`.

    Raises:
        SuiteError: It is not, with the cause and a hookpoint where it is.
    """
    ids = ids[:PROOF_ROWS]
    fault = _fault(forward, ids)
    if fault == _NOT_FINITE and forward.lm.facts.load.dtype == "float16":
        raise forward.lm.not_finite("a logit")
    if fault == _NOT_FINITE:
        raise SuiteError(
            f"model '{forward.lm.facts.id}': {fault}, at every hookpoint. "
            "Its weights are damaged, or belong to another config.json. Copy or download the folder again."
        )
    if fault is not None:
        raise SuiteError(
            f"hookpoint '{forward.hookpoint}' of model '{forward.lm.facts.id}': {fault} {_advice(forward, ids)}"
        )
    return Proof(len(ids), ids.shape[1], _short_is_exact(forward, ids))


def _fault(forward: HookedForward, ids: Tensor) -> str | None:
    x, logits = forward.clean(ids)
    if bool((logits.isnan() | logits.isposinf()).any()):
        return _NOT_FINITE
    other = ids.clone()
    other[:, -1] = (ids[:, -1] + 1) % forward.lm.vocab_size
    ahead = forward.clean(other)[1][:, :-1]  # a model that keeps state gives other logits after it
    again, again_logits = forward.clean(ids)
    if not (torch.equal(x, again) and torch.equal(logits, again_logits)):
        return "two forwards of the same tokens differ, so no loss of it can be compared."
    near = max(1e-3, 4 * torch.finfo(logits.dtype).eps)  # a few roundings, in half precision
    if not torch.allclose(ahead, logits[:, :-1], rtol=near, atol=near):
        return "its logits at a token depend on the tokens behind it, so its losses are no predictions."
    if not torch.equal(forward.lm.activations(ids, forward.hookpoint), x):
        return "the activation that an SAE is trained on is not the one that its losses are taken at."
    spliced = forward.logits(ids, x, short=False)
    if not torch.equal(spliced, logits):
        return (
            f"its own output in its own place moves the logits by up to {float((spliced - logits).abs().max()):.2g}, "
            "so no loss could be trusted."
        )
    if torch.equal(forward.logits(ids, _moved(x), short=False), logits):
        return "the logits do not depend on what it hands on, so no loss would tell anything."
    return None


def _moved(x: Tensor) -> Tensor:
    """`x` with noise of its own size: a shift or a scale alone could be undone by a norm."""
    noise = torch.randn(x.shape, generator=generator("proof", 0)).to(x)
    return x + noise * (x.square().mean().sqrt() + 1e-3)


def _short_is_exact(forward: HookedForward, ids: Tensor) -> bool:
    """On the clean activation and on another one, with a forward of other tokens before."""
    if not forward.can_skip:
        return False
    x, logits = forward.clean(ids)
    moved = _moved(x)
    moved_logits = forward.logits(ids, moved, short=False)
    forward.clean(ids.flip(1))
    try:
        return torch.equal(forward.logits(ids, x, short=True), logits) and torch.equal(
            forward.logits(ids, moved, short=True), moved_logits
        )
    except Exception:  # noqa: BLE001 - a model's own code
        return False  # a model with another wiring: the full way is always right


def _advice(forward: HookedForward, ids: Tensor) -> str:
    """Names a block where splicing is exact: the one around the hookpoint first, then its neighbours."""
    facts = forward.lm.facts
    blocks = facts.trace.blocks
    if blocks is None:
        return "Use another hookpoint."
    inside = forward.hookpoint.removeprefix(f"{blocks}.").partition(".")[0]
    start = int(inside) if forward.hookpoint.startswith(f"{blocks}.") and inside.isdigit() else 0
    for index in sorted(range(facts.n_layers), key=lambda index: (abs(index - start), index))[:_ALTERNATIVES]:
        name = f"layers.{index}"
        try:
            other = HookedForward(forward.lm, facts.hookpoint(name).path)
            if other.hookpoint != forward.hookpoint and _fault(other, ids) is None:
                return f"Use '{name}', where it is exact."
        except SuiteError:
            continue
    return "Use another hookpoint."
