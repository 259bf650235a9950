"""Work that is counted on the real calls: what a step, and what a hook of a plugin, spends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from saebench.nn.kernels.surplus import is_surplus

_MEMORY = frozenset({
    torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.empty_strided, torch.ops.aten.new_empty,
    torch.ops.aten.new_empty_strided, torch.ops.aten.resize_,
})  # fmt: skip
"""They only make room, and memory that a kernel keeps is made the first time alone."""
FEW = 64
"""Calls on fewer values are not counted: torch makes some of its own, the first time that it is asked for a thing."""

_READS_ALL = frozenset({
    "sum", "mean", "prod", "norm", "linalg_vector_norm", "var", "std", "var_mean", "amax", "amin", "max", "min",
    "argmax", "argmin", "any", "all", "count_nonzero", "topk", "sort", "kthvalue", "median", "quantile", "cumsum",
    "logsumexp", "index_add", "index_add_", "index_put", "index_put_", "scatter_add", "scatter_add_", "histc", "unique",
    "nonzero", "bincount",
})  # fmt: skip
"""Their answer may be small; they read all of what they are given."""


def _cubic(*shapes: Sequence[int]) -> int:
    """Of a decomposition or a solution of linear equations: two FLOPs for each value and each of its smaller side."""
    shape = max(shapes, key=math.prod)
    return 2 * math.prod(shape) * min(shape[-2:]) if len(shape) > 1 else 2 * math.prod(shape)


def _vector(*shapes: Sequence[int]) -> int:
    return 2 * max(map(math.prod, shapes))


_PRODUCTS: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("mv", "addmv", "addmv_", "dot", "vdot"), _vector),
    **dict.fromkeys(("addr", "addr_", "ger", "outer"), lambda *shapes: 2 * shapes[-2][0] * shapes[-1][0]),
}
"""Products that torch's own counter leaves out."""


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating-point operations of the calls in its block, on this thread; changes nothing of them.

    A multiply-add counts as two. Matrix products go by torch's registry of formulas. What else is computed counts one
    for each value that it makes, or reads where it sums; a view is free. Kernels of ours that work outside of torch
    (oneDNN's products of bfloat16) are not seen: no more is counted than was done.

    Attributes:
        dense: Of matrix products, convolutions, decompositions and solutions of linear equations.
        other: Of all else.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dense = self.other = 0

    @property
    def flops(self) -> int:
        """All of them."""
        return self.dense + self.other

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", None)
        formula = flop_registry.get(packet)
        if formula is None and func is not torch.ops.prim.device.default and not _is_leaf(func):
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        out = func(*args, **kwargs)
        if is_surplus():
            return out
        if sparse := [tensor for tensor in _tensors(args) if tensor.layout is not torch.strided]:
            self.other += 2 * sum(_entries(tensor) for tensor in sparse) * _width(out)
        elif formula is not None:
            self.dense += int(formula(*args, **kwargs, out_val=out))
        elif not getattr(func, "is_view", False) and packet not in _MEMORY:
            self._count(packet, args, out)
        return out

    def _count(self, packet: Any, args: Sequence[Any], out: Any) -> None:
        name = getattr(packet, "__name__", "")
        if name in _PRODUCTS:
            self.dense += _PRODUCTS[name](*(tensor.shape for tensor in _tensors(args)))
        elif name.startswith(("linalg_", "_linalg_", "geqrf", "triangular_solve", "cholesky", "lu_")) and (
            name != "linalg_vector_norm"
        ):
            self.dense += _cubic(*(tensor.shape for tensor in _tensors(args)))
        elif "embedding_bag" in name:
            weight, latents = list(_tensors(args))[:2]
            self.other += 2 * latents.numel() * weight.shape[-1]
        else:
            made = max((tensor.numel() for tensor in _tensors((out,))), default=0)
            if name in _READS_ALL:
                made = max(made, *(tensor.numel() for tensor in _tensors(args)), 0)
            if made >= FEW:
                self.other += made


def _entries(sparse: Tensor) -> int:
    return int(sparse._nnz()) if sparse.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc) else 0


def _width(out: Any) -> int:
    """Of a dense answer its columns: a product touches them all for each entry."""
    return out.shape[-1] if isinstance(out, Tensor) and out.layout is torch.strided and out.ndim == 2 else 1


def _is_leaf(func: Any) -> bool:
    """Whether a call has no parts: asked once each, as a call that has some is rare."""
    known = _LEAVES.get(func)
    if known is None:
        known = _LEAVES[func] = not (
            isinstance(func, torch._ops.OpOverload)
            and torch._C._dispatch_has_kernel_for_dispatch_key(str(func._name), "CompositeImplicitAutograd")
        )
    return known


_LEAVES: dict[Any, bool] = {}


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """Tensors among arguments, those in lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
