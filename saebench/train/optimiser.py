"""Adam under constraints, on a schedule: the only optimiser of saebench."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saebench.api import Diverged, NonNegative, PluginError, UnitRows
from saebench.api.errors import DIVERGED_ADVICE
from saebench.api.sae import Constraint
from saebench.cells.cell import TrainSettings
from saebench.train.schedule import lr_factor

_TINY = torch.finfo(torch.float32).tiny
CHUNK_VALUES = 1 << 19
"""Values of a weight, and as many of its gradient, that one pass over constrained rows holds: 4 MB together."""


class Constraints:
    """What `constraints()` asked for, applied by the harness: project the gradient, step, renormalise.

    Args:
        module: The SAE.
        label: Named in errors.

    Raises:
        PluginError: `constraints()` names no parameter of the module, or an unknown constraint.
    """

    def __init__(self, module: torch.nn.Module, label: str) -> None:
        declared: Mapping[str, Constraint] = getattr(module, "constraints", dict)()
        parameters = dict(module.named_parameters())
        self._unit_rows: list[Tensor] = []
        self._floors: list[tuple[Tensor, float]] = []
        self._seen: list[int] = []
        for name, constraint in declared.items():
            if name not in parameters:
                raise PluginError(
                    f"{label}: constraints() names '{name}', which is no parameter. Parameters: "
                    f"{', '.join(parameters) or 'none'}."
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
        """Takes away each unit row's gradient component along that row: only what turns it is left.

        Rows are of norm 1 (or zero) here: `enforce` comes before every step.
        """
        for weight in self._unit_rows:
            if weight.grad is None:
                continue
            for rows in _chunks(weight):
                own, grad = weight[rows], weight.grad[rows]
                grad.addcmul_((grad * own).sum(-1, keepdim=True), own, value=-1)

    @torch.no_grad()
    def enforce(self) -> None:
        """Brings every constrained parameter back to where it is allowed; a zero row stays zero."""
        for weight in self._unit_rows:
            for rows in _chunks(weight):
                own = weight[rows]
                own.div_(own.norm(dim=-1, keepdim=True).clamp_min_(_TINY))
        for parameter, floor in self._floors:
            parameter.clamp_min_(floor)
        self._seen = self._versions()

    def enforce_again(self) -> None:
        """`enforce`, where a constrained parameter was written into since (re-aimed rows obey constraints too)."""
        if self._versions() != self._seen:
            self.enforce()

    def _versions(self) -> list[int]:
        """Each goes up with every write in place."""
        return [parameter._version for parameter in (*self._unit_rows, *(floored for floored, _ in self._floors))]


def _chunks(weight: Tensor) -> list[slice]:
    """Rows in pieces that stay in a core's cache between two passes over them; on a GPU all at once."""
    size = max(1, CHUNK_VALUES // max(1, weight[0].numel())) if weight.device.type == "cpu" else len(weight)
    return [slice(start, start + size) for start in range(0, len(weight), max(1, size))]


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
            f"{label}: param_groups(lr) leaves out {', '.join(forgotten)}. List every parameter, or set requires_grad "
            "to False."
        )
    if not made:
        raise PluginError(
            f"{label}: nothing to train: no parameter requires a gradient. Write `fit(batches)` in place of "
            "`training_loss`."
        )
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise PluginError(f"{label}: parameter '{name}' is {parameter.dtype}; parameters are trained in float32")
    return made


class Optimiser:
    """Adam in float32 with a learning-rate schedule on progress, global gradient clipping and constraints.

    Args:
        module: The SAE, on its device.
        settings: Learning rate, Adam, clipping, schedule.
        label: Named in errors.
    """

    def __init__(self, module: torch.nn.Module, settings: TrainSettings, label: str) -> None:
        groups = _groups(module, settings.lr, label)
        self._label = label
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._fused = all(parameter.device.type in ("cpu", "cuda") for parameter in self._parameters)
        self._adam = torch.optim.Adam(
            groups, lr=settings.lr, betas=(settings.betas[0], settings.betas[1]), eps=settings.eps, fused=self._fused
        )
        self._settings = settings
        self.constraints = Constraints(module, label)
        self.constraints.enforce()

    def step(self, before: float, after: float) -> None:
        """One step on the gradients in the parameters' `.grad`: project, clip, step, renormalise.

        Args:
            before, after: Progress before and after the tokens of this step.

        Raises:
            Diverged: The gradient is not finite.
        """
        self.constraints.project_gradients()
        if self._settings.clip is not None:
            self._clip_gradients(self._settings.clip)
        factor = lr_factor(before, after, self._settings.warmup, self._settings.decay)
        for group in self._adam.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self._adam.step()
        self.constraints.enforce()

    def _clip_gradients(self, most: float) -> None:
        grads = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if not grads:
            return
        norm = float(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]).double().norm())
        if not math.isfinite(norm):
            raise Diverged(f"{self._label}: the gradient's norm is {norm}. {DIVERGED_ADVICE}")
        if norm > most:  # a gradient that is short enough is not read and written once more
            torch._foreach_mul_(grads, most / norm)

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts, by position of the parameter: all that a snapshot needs."""
        return {
            f"{index}.{name}": value
            for index, parameter in enumerate(self._parameters)
            for name, value in self._adam.state.get(parameter, {}).items()
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state` gave, for the same module."""
        for index, parameter in enumerate(self._parameters):
            own = {
                name.partition(".")[2]: value for name, value in state.items() if name.partition(".")[0] == str(index)
            }
            if own:
                # only the fused Adam counts its steps where the parameter is
                self._adam.state[parameter] = {
                    name: value.to(parameter.device if self._fused or name != "step" else "cpu", copy=True)
                    for name, value in own.items()
                }

    @torch.no_grad()
    def reset_moments(self, parameter: Tensor, rows: Tensor) -> None:
        """Zeroes Adam's two moments of some rows (first index) of a parameter; for resampled or re-aimed latents.

        Raises:
            PluginError: The tensor is not one of the trained parameters.
        """
        if not any(parameter is known for known in self._parameters):
            raise PluginError(
                f"{self._label}: reset_moments got a tensor {list(parameter.shape)} that is no trained parameter. Pass "
                "the module's own parameter."
            )
        state = self._adam.state.get(parameter, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][rows] = 0.0
