"""One small forward that tells which modules run, what they put out and what it costs to get there.

The model may hold real weights or be on the meta device, where the forward costs nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from saebench.api.errors import SuiteError
from saebench.lm.hf import cache_switch

TRACED = (2, 7)
"""Sequences and tokens of the forward: not the sizes of heads, experts or a broadcast table of positions by chance."""


@dataclass(frozen=True)
class Ran:
    """What one module did in the forward.

    Attributes:
        shape: Shape of its (first) output, or None where that is no tensor of floating numbers.
        flops_per_token: Work of everything that had run when it first returned: twice the weights used, embeddings left
            out.
        calls: How often it ran.
    """

    shape: tuple[int, ...] | None
    flops_per_token: int
    calls: int = 1


@dataclass(frozen=True)
class Trace:
    """Modules that ran, by dotted path, and the path of the list of blocks (None where there is none).

    Attributes:
        ran: Those that ran.
        modules: All of them.
        blocks, n_layers: The list of blocks, and how many there are.
        n_parameters: Learned values.
        tokens: `[sequences, tokens]` of the forward.
    """

    ran: Mapping[str, Ran]
    modules: frozenset[str]
    blocks: str | None
    n_layers: int
    n_parameters: int
    tokens: tuple[int, int]

    @property
    def flops_per_token(self) -> int:
        """Of the whole model."""
        return self.ran[""].flops_per_token


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a hook means: the output itself, or the first item of a tuple or of a transformers output."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def read_output(output: Any, ids: Tensor, where: str) -> Tensor:
    """`[S, T, d]` that a module put out on `ids [S, T]`.

    Raises:
        SuiteError: It has another shape, or is no tensor.
    """
    tensor = first_tensor(output)
    if tensor is None or tensor.ndim != 3 or tensor.shape[:2] != ids.shape:
        found = "no tensor" if tensor is None else str(list(tensor.shape))
        raise SuiteError(f"{where} put out {found} on tokens {list(ids.shape)}, not [sequences, tokens, width].")
    return tensor


def find_blocks(model: nn.Module, ran: Container[str] | None = None) -> tuple[str, nn.ModuleList] | None:
    """The decoder (or encoder) blocks: the longest `ModuleList` that lies in no other one; of equal ones the first.

    With the paths that `ran`, only lists whose modules did: text passes no tower for pictures.
    """
    found: list[tuple[str, nn.ModuleList]] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer, _ in found)
        if not isinstance(module, nn.ModuleList) or not len(module) or inside:
            continue
        if ran is None or any(f"{path}.{name}" in ran for name, _ in module.named_children()):
            found.append((path, module))
    return max(found, key=lambda item: len(item[1]), default=None)


@contextmanager
def _recording(model: nn.Module, ran: dict[str, Ran]) -> Iterator[None]:
    flops = 0
    handles = []

    def hook_for(path: str) -> Any:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            nonlocal flops
            if not isinstance(module, nn.Embedding):
                flops += 2 * sum(p.numel() for p in module.parameters(recurse=False) if p.ndim >= 2)
            if path in ran:
                ran[path] = replace(ran[path], calls=ran[path].calls + 1)
                return
            tensor = first_tensor(output)
            real = tensor is not None and tensor.is_floating_point()
            ran[path] = Ran(tuple(tensor.shape) if tensor is not None and real else None, flops)

        return hook

    first: dict[nn.Module, str] = {}
    try:
        for path, module in model.named_modules(remove_duplicate=False):
            if first.setdefault(module, path) == path:
                handles.append(module.register_forward_hook(hook_for(path)))
        yield
        # one module under several names (weights shared between blocks) ran under all of them
        for path, module in model.named_modules(remove_duplicate=False):
            if first[module] in ran:
                ran.setdefault(path, ran[first[module]])
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, *, causal: bool) -> Trace:
    """Runs a few token ids through the model and says what ran.

    Raises:
        RuntimeError, ValueError, TypeError, ...: Whatever the model raises; on the meta device some models cannot run.
    """
    device = next(model.parameters()).device
    ids = torch.zeros(*TRACED, dtype=torch.long, device=device)
    # transformers reads values when it makes a causal mask itself, and the meta device has none.
    masks: list[dict[str, Any]] = [{}]
    if device.type == "meta" and causal:
        masks = [{"attention_mask": torch.zeros(TRACED[0], 1, TRACED[1], TRACED[1], device=device)}, {}]
    errors: list[Exception] = []
    for mask in masks:
        ran: dict[str, Ran] = {}
        try:
            with torch.no_grad(), _recording(model, ran):
                model(input_ids=ids, **mask, **cache_switch(model, False))
        except Exception as error:  # noqa: BLE001 - a model's own code
            errors.append(error)
            continue
        blocks = find_blocks(model, ran)
        return Trace(
            ran=ran,
            modules=frozenset(path for path, _ in model.named_modules(remove_duplicate=False) if path),
            blocks=blocks[0] if blocks else None,
            n_layers=len(blocks[1]) if blocks else 0,
            n_parameters=sum(parameter.numel() for parameter in model.parameters()),
            tokens=TRACED,
        )
    raise errors[0]
