"""A CUDA card that is not there: `with simulated_cuda() as card:` and what says `device="cuda"` runs, on the processor.

    with simulated_cuda() as card:
        outcome = train(cells, ..., device="cuda")         # true values: the operators of the processor
        with card.hot("a training step", allowed={...}):   # in the block nothing may wait for the host
            step()
    card.waits                                             # Counter of what made the host and the card wait, by place

What is placed on the card says `device == cuda:0`, and what a real card refuses is refused with a RuntimeError:
    - tensors of both places in one operator; as in torch, a 0-dim tensor of the processor may join an elementwise
      operator, and indices may lie on the processor (a copy: it is counted);
    - `.numpy()`, a generator of the processor for numbers on the card, products of integers;
    - under `torch.use_deterministic_algorithms(True)` operators that torch documents to have no deterministic form;
    - more memory than `memory_bytes`, with `torch.OutOfMemoryError`.
What a real card makes slow is counted by place (file, line, function, what): reading a value (`.item()`, `bool`,
`float`, `.tolist()`), sizes that depend on values (`nonzero`, boolean indexing, `bincount`, ...), copies either way.
In a hot region these raise HostWait, and so does any tensor made on the processor: a constant inside of a kernel.
`allowed` names functions in which they are accepted, as `file.py:function`, and folders, as `transformers/`.

What is not simulated: a card's rounding, its own random streams (numbers are the processor's), its speed, streams.

How: a tensor on the card is a subclass around a tensor of the processor. To C++ it says that it lies on `meta:1`, which
has no memory to read and no kernels: nothing gets at the values past `__torch_dispatch__`. It cannot say `cuda` there,
as autograd asks a CPU-only torch for a guard of the device and the process is aborted; nor `cpu`, which would hide what
C++ makes on the tensor's device from what is made on the default one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from torch.cuda._utils import _get_device_index
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
_INSIDE = torch.device("meta", 1)
_CPU = torch.device("cpu")
_ROOT = Path(__file__).parents[1]
_PACKAGES = Path(torch.__file__).parents[1]
_NOT_CALLERS = (__file__, str(_PACKAGES / "torch"), contextlib.__file__)

aten = torch.ops.aten

READS = {
    aten._local_scalar_dense: "a value is read (item, bool, float)",
    aten.equal: "a value is read (equal)",
    aten.is_nonzero: "a value is read (bool)",
    **dict.fromkeys(
        (
            aten.nonzero,
            aten.nonzero_numpy,
            aten.argwhere,
            aten.masked_select,
            aten.bincount,
            aten._unique,
            aten._unique2,
            aten.unique_dim,
            aten.unique_consecutive,
        ),
        "its size depends on values",
    ),
    **dict.fromkeys((aten._linalg_eigh, aten._linalg_svd, aten.linalg_qr), "the solver's status is read"),
}
"""Operators that always make the host wait for the card."""
_MIXED = {aten.copy_, aten._to_copy, aten._foreach_copy_}
"""Operators that may read from one place and write to the other."""
_SCALARS = {aten.fill_, aten.masked_fill, aten.masked_fill_, aten.index_put, aten.index_put_, aten.index_fill_}
"""Operators that are not elementwise and take a 0-dim tensor of the processor all the same."""
_INDEXING = {aten.index: 1, aten.index_put: 1, aten.index_put_: 1}
"""Operators whose indices may lie on the processor, and their place among the arguments."""
_INTEGER_PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.addmv}
NOT_DETERMINISTIC: dict[Any, Callable[[tuple[Any, ...], dict[str, Any]], bool]] = {
    aten.put_: lambda args, kwargs: True,
    aten.put: lambda args, kwargs: True,
    aten.histc: lambda args, kwargs: True,
    aten.bincount: lambda args, kwargs: (len(args) > 1 and args[1] is not None) or kwargs.get("weights") is not None,
    aten.median: lambda args, kwargs: len(args) > 1,
    aten.cumsum: lambda args, kwargs: _is_float(kwargs.get("dtype") or args[0].dtype),
    aten.cumsum_: lambda args, kwargs: _is_float(args[0].dtype),
    aten.nll_loss2d_forward: lambda args, kwargs: True,
    aten.scatter_reduce: lambda args, kwargs: args[4] == "prod",
    aten.scatter_reduce_: lambda args, kwargs: args[4] == "prod",
    aten.grid_sampler_2d_backward: lambda args, kwargs: True,
    aten.upsample_linear1d_backward: lambda args, kwargs: True,
    aten.upsample_bilinear2d_backward: lambda args, kwargs: True,
    aten.reflection_pad1d_backward: lambda args, kwargs: True,
}
"""Those of the list in the docstring of `torch.use_deterministic_algorithms` that numeric code might call."""
_DATA = {torch.tensor, torch.as_tensor, torch.asarray}
_DATA_HERE = {torch.from_numpy, torch.frombuffer}


class HostWait(RuntimeError):
    """In a hot region something waits for the host, or is made there."""


def _is_float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


class _Memory:
    """The values of a tensor on the card, counted as its memory for as long as anything refers to them."""

    __slots__ = ("card", "place", "size", "tensor")

    def __init__(self, tensor: Tensor, card: Card) -> None:
        storage = tensor.untyped_storage() if tensor.layout == torch.strided else None
        self.tensor, self.card = tensor, card
        self.place, self.size = (storage.data_ptr(), storage.nbytes()) if storage is not None else (0, 0)
        card.hold(self.place, self.size)

    def __del__(self) -> None:
        self.card.release(self.place, self.size)


class CudaTensor(Tensor):
    """A tensor on the simulated card."""

    _memory: _Memory

    @staticmethod
    def __new__(cls, tensor: Tensor, card: Card) -> CudaTensor:
        strided = tensor.layout == torch.strided
        lies = {"strides": tensor.stride(), "storage_offset": tensor.storage_offset()} if strided else {}
        made: CudaTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, tensor.size(), dtype=tensor.dtype, device=_INSIDE, **lies
        )
        made._memory = _Memory(tensor, card)
        return made

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]
    layout = property(lambda self: self._memory.tensor.layout)  # type: ignore[assignment]

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, CudaTensor):
            raise RuntimeError("incompatible tensor type: data of a tensor on the card stays on the card")
        memory = value._memory
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self._memory = memory

    def get_device(self) -> int:
        return 0

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        made: Tensor = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self._memory.tensor!r} on {CUDA}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the simulated card, outside of `with simulated_cuda()`")


class Card:
    """The simulated card: what it holds, and what waited for it.

    Attributes:
        waits: How often the host and the card waited for each other, by place: `file.py:line function: what`.
        total_bytes: Of its memory. held_bytes, peak_bytes: What tensors take now, and took at most.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.waits: Counter[str] = Counter()
        self.total_bytes = self.limit_bytes = memory_bytes
        self.held_bytes = self.peak_bytes = 0
        self._references: Counter[int] = Counter()
        self._lock = threading.RLock()
        self._hot: list[tuple[str, frozenset[str]]] = []
        self._thread = 0

    @contextmanager
    def hot(self, where: str, allowed: Collection[str] = ()) -> Iterator[None]:
        """In the block nothing of this thread may wait for the host, but what is in functions and folders `allowed`."""
        self._thread = threading.get_ident()
        self._hot.append((where, frozenset(allowed)))
        try:
            yield
        finally:
            self._hot.pop()

    def note(self, what: str, *, counted: bool = True) -> None:
        """Counts what makes the host wait; refuses it in a hot region."""
        hot = self._hot and self._thread == threading.get_ident()
        if not counted and not hot:
            return
        path, line, function = _caller()
        if counted:
            self.waits[f"{path}:{line} {function}: {what}"] += 1
        if not hot:
            return
        (where, allowed), place = self._hot[-1], f"{path}:{function}"
        if place not in allowed and not any(name.endswith("/") and place.startswith(name) for name in allowed):
            raise HostWait(f"{path}:{line}, in {function}: {what}, inside of {where}. Accepted as '{place}'.")

    def hold(self, place: int, size: int) -> None:
        """One reference more to memory. Raises OutOfMemoryError where it does not fit."""
        with self._lock:
            self._references[place] += 1
            if self._references[place] == 1:
                self.held_bytes += size
                self.peak_bytes = max(self.peak_bytes, self.held_bytes)
            full = self.held_bytes > self.limit_bytes
        if full:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size:,} bytes; {self.limit_bytes:,} may be used. (simulated)"
            )

    def release(self, place: int, size: int) -> None:
        """One reference less."""
        with self._lock:
            self._references[place] -= 1
            if not self._references[place]:
                del self._references[place]
                self.held_bytes -= size


def _caller() -> tuple[str, int, str]:
    """File, line and function nearest to the call that are neither torch's nor ours."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if not frame.f_code.co_filename.startswith(_NOT_CALLERS):
            break
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    root = next((root for root in (_PACKAGES, _ROOT) if root in path.parents), path.parent)
    return path.relative_to(root).as_posix(), frame.f_lineno, frame.f_code.co_qualname.removeprefix("<locals>.")


def _place(value: Any) -> Any:
    """A device as C++ is to see it."""
    if isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda")):
        asked = torch.device(value)
        if asked.type == "cuda":
            if asked.index not in (None, 0):
                raise RuntimeError("CUDA error: invalid device ordinal (one card is simulated)")
            return _INSIDE
    return value


def _index(index: Any) -> Any:
    """An index without lists: of those C++ makes tensors whose values are written past our operators."""
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


class _Calls(TorchFunctionMode):
    """What Python asks for: devices are named here, before C++ finds that it has no CUDA."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.cuda:
            return args[0].to(_INSIDE)
        if func is Tensor.cpu:
            return args[0].to(_CPU)
        if "device" in kwargs:
            kwargs["device"] = _place(kwargs["device"])
        strings = func is Tensor.to  # elsewhere a string among the arguments is something else
        args = tuple(_place(arg) if strings or isinstance(arg, torch.device) else arg for arg in args)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], _index(args[1]), *args[2:])
        if func in _DATA_HERE:
            self.card.note("a tensor is made on the processor", counted=False)
        if func in _DATA:
            data = args[0] if args else kwargs.get("data", kwargs.get("obj"))
            if isinstance(data, CudaTensor) and func is not torch.tensor:
                return data.to(**{name: value for name, value in kwargs.items() if name in ("device", "dtype")})
            if kwargs.get("device") == _INSIDE:
                del kwargs["device"]
                return func(*args, **kwargs).to(_INSIDE)
            self.card.note("a tensor is made on the processor", counted=False)
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    """What is computed: on the card's values where its tensors take part, on the processor's as they are elsewhere."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        own = [leaf for leaf in leaves if isinstance(leaf, CudaTensor)]
        others = [leaf for leaf in leaves if not isinstance(leaf, CudaTensor)]
        asked, operator = kwargs.get("device"), func.overloadpacket
        there = (asked == _INSIDE and asked is not None) or (bool(own) and asked is None)
        if asked == _INSIDE:
            kwargs["device"] = _CPU
        if not own and not there:
            if not leaves and isinstance(asked, torch.device) and asked == _CPU:
                self.card.note("a tensor is made on the processor", counted=False)
            return func(*args, **kwargs)
        self._check(func, args, kwargs, own, others, there)
        if operator is aten._to_copy and there == bool(others):
            self.card.note("values are copied to the card" if there else "values are copied from the card")
        values = {id(tensor._memory.tensor): tensor for tensor in own}
        inner_args, inner_kwargs = tree_map(
            lambda leaf: leaf._memory.tensor if isinstance(leaf, CudaTensor) else leaf, (args, kwargs)
        )
        made = func(*inner_args, **inner_kwargs)
        if torch.Tag.inplace_view in func.tags:  # `squeeze_`: the outer tensor's shape follows
            with no_dispatch():
                func(*args, **kwargs)
        for tensor in own:
            if tensor.shape != tensor._memory.tensor.shape:
                raise RuntimeError(
                    f"{func} changes the shape of a tensor in place, which the simulated card does not follow"
                )
        if operator is aten._to_copy and there and any(made is tensor for tensor in others):
            made = made.clone()

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or isinstance(leaf, CudaTensor) or any(leaf is other for other in others):
                return leaf
            return values[id(leaf)] if id(leaf) in values else CudaTensor(leaf, self.card)

        return tree_map(wrapped, made) if there else made

    def _check(
        self, func: Any, args: Any, kwargs: Any, own: list[CudaTensor], others: list[Tensor], there: bool
    ) -> None:
        operator = func.overloadpacket
        if others and own:
            self._check_places(func, args, kwargs, others)
        generator = kwargs.get("generator")
        if there and generator is not None and generator._cdata not in _Generator.of_the_card:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if operator in _INTEGER_PRODUCTS and not _is_float(own[-1].dtype):
            raise RuntimeError(f'"addmm_cuda" not implemented for {own[-1].dtype}')
        refused = NOT_DETERMINISTIC.get(operator)
        strict = (
            torch.get_deterministic_debug_mode() == 2  # 1 only warns
        )
        if refused is not None and strict and refused(args, kwargs):
            raise RuntimeError(
                f"{operator} on CUDA does not have a deterministic implementation, but you set "
                "'torch.use_deterministic_algorithms(True)'."
            )
        if what := _waits(operator, args, kwargs):
            self.card.note(what)

    def _check_places(self, func: Any, args: Any, kwargs: Any, others: list[Tensor]) -> None:
        operator = func.overloadpacket
        if operator in _MIXED:
            if operator is not aten._to_copy:
                self.card.note("values are copied between card and processor")
            return
        joins = torch.Tag.pointwise in func.tags or operator in _SCALARS or "_foreach" in str(operator)
        named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            held = [leaf for leaf in tree_flatten(named.get(argument.name))[0] if isinstance(leaf, Tensor)]
            for leaf in held:
                if isinstance(leaf, CudaTensor):
                    continue
                if argument.name == "indices" and operator in _INDEXING and isinstance(args[0], CudaTensor):
                    self.card.note("indices are copied to the card")
                elif leaf.ndim or written or not joins:
                    path, line, function = _caller()
                    raise RuntimeError(
                        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                        f"{leaf.device}! ({path}:{line}, in {function}: {argument.name} of {operator} is on "
                        f"{leaf.device})"
                    )


def _waits(operator: Any, args: Any, kwargs: Any) -> str | None:
    """Why the host waits for this operator, or None."""
    if operator in READS:
        return READS[operator]
    if operator is aten.repeat_interleave and kwargs.get("output_size") is None:
        return "its size depends on values"
    if operator is aten.multinomial and not (len(args) > 2 and args[2]) and not kwargs.get("replacement"):
        return "a value is read (weights are checked)"
    if operator in _INDEXING:
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        fills = operator is not aten.index and args[2].numel() == 1 and not any(args[3:])
        if masks and not (fills and len(masks) == sum(index is not None for index in args[1])):
            return "its size depends on values (a mask as index)"
    return None


class _Generator(torch.Generator):
    """A generator that knows whether it was made for the card. C++ hands on what is inside of it, `_cdata`."""

    of_the_card: ClassVar[dict[int, _Generator]] = {}

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made: _Generator = super().__new__(cls, "cpu")
        if torch.device(device).type == "cuda":
            cls.of_the_card[made._cdata] = made  # kept alive: the number stays its own
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA if self._cdata in self.of_the_card else _CPU


def _cuda_calls(card: Card) -> dict[str, Callable[..., Any]]:
    """What stands in `torch.cuda`. A device is looked at as torch does: not every call takes one without an index."""

    def limit(fraction: float, device: Any = None) -> None:
        if device is not None:
            _get_device_index(device)
        card.limit_bytes = int(fraction * card.total_bytes)

    def forget_peak() -> None:
        card.peak_bytes = card.held_bytes

    def answers(answer: Callable[[], Any]) -> Callable[..., Any]:
        def call(device: Any = None) -> Any:
            if _get_device_index(device, optional=True) != 0:
                raise RuntimeError("CUDA error: invalid device ordinal (one card is simulated)")
            return answer()

        return call

    properties = SimpleNamespace(
        name="simulated", total_memory=card.total_bytes, major=9, minor=0, multi_processor_count=1
    )
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": answers(lambda: None),
        "empty_cache": lambda: None,
        "mem_get_info": answers(lambda: (card.total_bytes - card.held_bytes, card.total_bytes)),
        "memory_allocated": answers(lambda: card.held_bytes),
        "memory_reserved": answers(lambda: card.held_bytes),
        "max_memory_allocated": answers(lambda: card.peak_bytes),
        "reset_peak_memory_stats": answers(forget_peak),
        "get_device_name": answers(lambda: "simulated"),
        "get_device_properties": answers(lambda: properties),
        "get_device_capability": answers(lambda: (9, 0)),
        "set_per_process_memory_fraction": limit,
        "is_bf16_supported": lambda including_emulation=True: True,
        "manual_seed_all": lambda seed: None,
    }


@contextmanager
def simulated_cuda(memory_bytes: int = 1 << 40) -> Iterator[Card]:
    """A card in the block. See the top of this file.

    Args:
        memory_bytes: Of the card.

    Yields:
        The card: `waits` and `hot`.
    """
    card = Card(memory_bytes)
    run = threading.Thread.run

    def run_here(thread: threading.Thread) -> None:
        with _Calls(card), _Operators(card):  # modes belong to a thread
            run(thread)

    run_backward = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def backward(*args: Any, **kwargs: Any) -> Any:
        with _Calls(card):  # torch switches the modes of a call off while it runs; backward functions make tensors too
            return run_backward(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", backward))
        for name, call in _cuda_calls(card).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, call))
        # a torch that was built for CUDA would start the driver to ask whether a graph is recorded
        stack.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", return_value=None))
        stack.enter_context(mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=False))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.callback(_Generator.of_the_card.clear)
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_here))
        before = torch.__future__.get_swap_module_params_on_conversion()
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, before)
        # a parameter stays the same object when its module moves, as on a real card
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.enter_context(_Calls(card))
        stack.enter_context(_Operators(card))
        yield card
