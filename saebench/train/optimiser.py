"""Adam under constraints, on a schedule: the only optimiser of saebench."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saebench.api import Diverged, NonNegative, PluginError, UnitRows
from saebench.api.sae import Constraint
from saebench.train.schedule import lr_factor

_TINY = torch.finfo(torch.float32).tiny


class Constraints:
    """What `constraints()` asked for, applied by the harness: project the gradient, step, renormalise.

    Args:
        module: The SAE.
        label: Named in errors.

    Raises:
        PluginError: `constraints()` names no parameter of the module, or an unknown constraint.
    """

    def __init__(self, module: torch.nn.Module, label: str) -> None:
        wanted: Mapping[str, Constraint] = getattr(module, "constraints", dict)()
        parameters = dict(module.named_parameters())
        self._unit_rows: list[Tensor] = []
        self._floors: list[tuple[Tensor, float]] = []
        for name, constraint in wanted.items():
            if name not in parameters:
                raise PluginError(
                    f"{label}: constraints() names '{name}', which is no parameter. Parameters: {', '.join(parameters) or 'none'}."
                )
            if isinstance(constraint, UnitRows):
                self._unit_rows.append(parameters[name])
            elif isinstance(constraint, NonNegative):
                self._floors.append((parameters[name], constraint.floor))
            else:
                raise PluginError(
                    f"{label}: constraints()['{name}'] is {type(constraint).__name__}; known: UnitRows, NonNegative"
                )

    @torch.no_grad()
    def project_gradients(self) -> None:
        """Takes away each unit row's gradient component along that row: only what turns it is left."""
        for weight in self._unit_rows:
            if weight.grad is not None:
                along = (weight.grad * weight).sum(-1, keepdim=True) / weight.square().sum(-1, keepdim=True).clamp_min(
                    _TINY
                )
                weight.grad.sub_(along * weight)

    @torch.no_grad()
    def enforce(self) -> None:
        """Brings every constrained parameter back to where it is allowed; a zero row stays zero."""
        for weight in self._unit_rows:
            weight.div_(weight.norm(dim=-1, keepdim=True).clamp_min(_TINY))
        for parameter, floor in self._floors:
            parameter.clamp_min_(floor)


def _groups(module: torch.nn.Module, lr: float, label: str) -> list[dict[str, Any]]:
    make = getattr(module, "param_groups", None)
    groups = list(make(lr)) if make is not None else [{"params": list(module.parameters())}]
    made = []
    for group in groups:
        own = {**group, "params": [parameter for parameter in group["params"] if parameter.requires_grad]}
        own.setdefault("lr", lr)
        if own["params"]:
            made.append({**own, "peak_lr": own["lr"]})
    listed = {id(parameter) for group in made for parameter in group["params"]}
    forgotten = [
        name for name, parameter in module.named_parameters() if parameter.requires_grad and id(parameter) not in listed
    ]
    if forgotten:
        raise PluginError(
            f"{label}: param_groups(lr) leaves out {', '.join(forgotten)}. List every parameter, or set requires_grad to False."
        )
    if not made:
        raise PluginError(
            f"{label}: nothing to train: no parameter requires a gradient. Offer `fit(batches)` in place of `training_loss`."
        )
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise PluginError(f"{label}: parameter '{name}' is {parameter.dtype}; parameters are trained in float32")
    return made


class Optimiser:
    """Adam in float32 with a learning-rate schedule on progress, global gradient clipping and constraints.

    Args:
        module: The SAE, on its device.
        lr, betas, eps, clip, warmup, decay: As in `TrainSettings`.
        label: Named in errors.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        clip: float | None,
        warmup: float,
        decay: float,
        label: str,
    ) -> None:
        groups = _groups(module, lr, label)
        self._label = label
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in self._parameters)
        self._adam = torch.optim.Adam(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=fused)
        self._clip = clip
        self._warmup, self._decay = warmup, decay
        self.constraints = Constraints(module, label)
        self.constraints.enforce()

    def step(self, loss: Tensor, before: float, after: float) -> None:
        """One step: backward, project, clip, step, renormalise.

        Raises:
            Diverged: The gradient is not finite.
        """
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.constraints.project_gradients()
        if self._clip is not None:
            norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._clip))
            if not math.isfinite(norm):
                raise Diverged(
                    f"{self._label}: the gradient's norm is {norm}. Lower train.lr or set a lower train.clip."
                )
        factor = lr_factor(before, after, self._warmup, self._decay)
        for group in self._adam.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self._adam.step()
        self.constraints.enforce()

    @torch.no_grad()
    def reset_moments(self, parameter: Tensor, rows: Tensor) -> None:
        """Zeroes Adam's two moments of some rows (first index) of a parameter; for resampled or re-aimed latents.

        Raises:
            PluginError: The tensor is not one of the trained parameters.
        """
        if not any(parameter is known for known in self._parameters):
            raise PluginError(
                f"{self._label}: reset_moments got a tensor {list(parameter.shape)} that is no trained parameter. Pass the module's own parameter."
            )
        state = self._adam.state.get(parameter, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][rows] = 0.0
