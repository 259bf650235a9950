"""Forwards that read the output of one module, or replace it.

Models write into tensors: a parallel block adds its attention to the output of its MLP in place. So what is kept of a
module's output is a copy, and what is put in its place is a copy of what is kept.

When the module is a block, blocks up to it need not run again for a forward with a replaced output: what they would
compute is replaced anyway. `saebench.lm.splicing_proof` shows whether that short way gives the same logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor

from saebench.api.errors import SuiteError
from saebench.lm.loaded import LoadedModel
from saebench.lm.trace import read_output


def with_first(output: Any, x: Tensor) -> Any:
    """A module's output with its first tensor replaced by a copy of `x`: what runs on may write into it."""
    if isinstance(output, Tensor):
        return _like(output, x)
    if isinstance(output, tuple):
        first = _like(output[0], x)
        named = getattr(output, "_fields", None)
        return output._replace(**{named[0]: first}) if named else (first, *output[1:])  # type: ignore[attr-defined]
    if isinstance(output, list):
        return [_like(output[0], x), *output[1:]]
    copied = copy(output)
    key = next(iter(output))
    copied[key] = _like(output[key], x)
    return copied


def _like(tensor: Tensor, x: Tensor) -> Tensor:
    """A copy of `x` in the precision and on the device of what it replaces."""
    return x.to(tensor.device, tensor.dtype, copy=True)


def _is_plain(output: Any) -> bool:
    """True when nothing but the first tensor of an output carries anything."""
    return isinstance(output, Tensor) or (
        isinstance(output, tuple) and not any(isinstance(item, Tensor) for item in output[1:])
    )


class HookedForward:
    """Forwards of a causal model, hooked at one module."""

    def __init__(self, lm: LoadedModel, hookpoint: str) -> None:
        self.lm = lm
        self.hookpoint = hookpoint
        blocks, _, index = hookpoint.rpartition(".")
        modules = (
            list(lm.model.get_submodule(blocks).children())
            if blocks == lm.facts.trace.blocks and index.isdigit()
            else []
        )
        skipped = modules[: int(index) + 1] if modules else []
        # a block whose forward was wrapped by another library must stay wrapped
        self._blocks = [] if any("forward" in block.__dict__ for block in skipped) else skipped
        self._form: Any = None

    @property
    def can_skip(self) -> bool:
        """Whether blocks may be skipped: the hookpoint is a block, and only its first tensor carries anything."""
        return bool(self._blocks) and self._form is not None

    def clean(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`x [S, T, d]` in float32 and the logits `[S, T, vocabulary]` of an unedited forward.

        Raises:
            SuiteError: The module ran not once, or put out no `[S, T, d]`.
        """
        kept: list[Tensor] = []

        def keep(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            tensor = read_output(output, ids, f"hookpoint '{self.hookpoint}' of model '{self.lm.facts.id}'")
            kept.append(tensor.detach().clone().to(self.lm.device, torch.float32))
            self._form = with_first(output, tensor[:0]) if _is_plain(output) else None

        with self.lm.hooks({self.hookpoint: keep}):
            logits = self._run(ids)
        if len(kept) != 1:
            raise SuiteError(
                f"hookpoint '{self.hookpoint}' of model '{self.lm.facts.id}' ran {len(kept)} times in one forward; "
                "an SAE needs a place that runs once."
            )
        return kept[0], logits

    def logits(self, ids: Tensor, x: Tensor, *, short: bool) -> Tensor:
        """Logits `[S, T, vocabulary]` with `x [S, T, d]` in place of the output; `short` skips the blocks before it."""
        if short:
            with self._skipping(x):
                return self._run(ids)

        def edit(_module: torch.nn.Module, _args: Any, output: Any) -> Any:
            return with_first(output, x)

        with self.lm.hooks({self.hookpoint: edit}):
            return self._run(ids)

    def _run(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.lm.run(ids).logits
        return logits.to(self.lm.device)

    @contextmanager
    def _skipping(self, x: Tensor) -> Iterator[None]:
        """Blocks before the hookpoint hand their input on; the block of the hookpoint puts out `x`."""

        def passes(*args: Any, **kwargs: Any) -> Any:
            return with_first(self._form, args[0] if args else kwargs["hidden_states"])

        def puts_out(*_args: Any, **_kwargs: Any) -> Any:
            return with_first(self._form, x)

        stand_ins: list[Callable[..., Any]] = [passes] * (len(self._blocks) - 1) + [puts_out]
        try:
            for block, stand_in in zip(self._blocks, stand_ins, strict=True):
                block.forward = stand_in
            yield
        finally:
            for block in self._blocks:
                block.__dict__.pop("forward", None)
