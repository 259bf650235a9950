"""`pytest --device cuda`: the unit tests of nn, train, score and matching on a card, or on the simulated one.

What a test file makes is made on the device; what saebench makes lies where saebench puts it. So a test needs no word
of devices, and a device that saebench forgets is found: its tensor stays on the processor and meets one of the card.
    - a tensor that a test makes (`torch.randn`, `torch.tensor`, `torch.from_numpy`, ...) is moved to the device, with
      the numbers that the processor's generator gives: every device tests the same values;
    - a module of saebench that a test builds is moved when it is built, tensors among a test file's globals when a test
      begins, and `torch.as_tensor` moves what it is given: for what a function of saebench makes on the processor;
    - NumPy's arrays that saebench.matching is given go to the device when it makes tensors of them;
    - where a test puts tensors of both places into one operator (what it made at import beside a result) all are moved;
      `.numpy()` and numpy's functions take them from the device;
    - calls inside of saebench are left as they are, and counted: a test in which saebench computed, and nothing on the
      device, fails. Those that are about the processor say so: `pytest.mark.cpu("why")`, and are skipped. What the
      simulated card cannot show is marked `pytest.mark.real("why")`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from simulated_device import CudaTensor, simulated_cuda
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

TESTS = Path(__file__).parent
ROOMS = tuple(str(TESTS / "unit" / name) for name in ("nn", "train", "score", "matching"))
_OURS = tuple(str(TESTS.parent / name) for name in ("saebench", "plugins"))
_TORCH = str(Path(torch.__file__).parent)
_TO_NUMPY = {Tensor.numpy, Tensor.__array__}
_STAYS = {Tensor.cpu, Tensor.to, Tensor.get_device, torch.Generator}


def in_rooms(path: Path) -> bool:
    """Whether a test file is one of those that run on the device."""
    return str(path).startswith(ROOMS)


def _caller() -> str:
    """File nearest to a call that is neither torch's nor this one."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if name != __file__ and not name.startswith(_TORCH):
            return name
        frame = frame.f_back
    return ""


class OnDevice(TorchFunctionMode):
    """See the top of this file.

    Attributes:
        here, there: Calls of saebench with tensors of the processor alone, and with tensors of the device.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.here, self.there = device, 0, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        caller = _caller()
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if caller.startswith(_OURS):
            made = func(*args, **kwargs)
            if any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in [*tensors, *tree_leaves(made)]):
                self.there += 1
            elif tensors and not isinstance(func, type(Tensor.shape.__get__)):
                self.here += 1
            return made
        if not caller.startswith(ROOMS):
            return func(*args, **kwargs)
        if func is torch.as_tensor:
            return self.moved(func(*args, **kwargs))
        if func in _TO_NUMPY and tensors and tensors[0].is_cuda:
            return func(tensors[0].detach().cpu(), *args[1:], **kwargs)
        if len(tensors) > 1 and len({tensor.is_cuda for tensor in tensors}) == 2 and func not in _STAYS:
            args, kwargs = tree_map(self.moved, (args, kwargs))
        made = func(*args, **kwargs)
        return made if tensors or "device" in kwargs or func in _STAYS else tree_map(self.moved, made)

    def moved(self, leaf: Any) -> Any:
        """A tensor of the processor on the device, anything else as it is."""
        if not isinstance(leaf, Tensor) or leaf.is_cuda:
            return leaf
        moved = leaf.detach().to(self.device).requires_grad_(leaf.requires_grad)
        return torch.nn.Parameter(moved, leaf.requires_grad) if isinstance(leaf, torch.nn.Parameter) else moved


def _kinds(kind: type = torch.nn.Module) -> Iterator[type]:
    """All modules of saebench and its plugins, as far as they are imported."""
    for below in kind.__subclasses__():
        if below.__module__.startswith("saebench"):
            yield below
        yield from _kinds(below)


@contextmanager
def _built_there(device: torch.device) -> Iterator[None]:
    """Modules whose constructor a test file calls are moved to the device when it returns."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in {kind for kind in _kinds() if "__init__" in vars(kind)}:
            patch.setattr(kind, "__init__", _moving(vars(kind)["__init__"], device))
        yield


def _moving(build: Any, device: torch.device) -> Any:
    """A constructor that moves what a test builds."""

    @functools.wraps(build)
    def built(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if _caller().startswith(ROOMS):
            self.to(device)

    return built


def _comparing(mode: OnDevice) -> Any:
    """`torch.testing.assert_close` for what lies in different places: it compares values."""
    compare = torch.testing.assert_close

    @functools.wraps(compare)
    def close(*args: Any, **kwargs: Any) -> None:
        compare(*tree_map(mode.moved, args), **kwargs)

    return close


def _from_numpy(mode: OnDevice) -> Any:
    """`torch.from_numpy`, which no mode sees."""
    make = torch.from_numpy

    @functools.wraps(make)
    def made(array: Any) -> Tensor:
        found: Tensor = make(array)
        moved: Tensor = mode.moved(found) if _caller().startswith(ROOMS) else found
        return moved

    return made


_refusing = CudaTensor.numpy


def _numpy(tensor: CudaTensor, *, force: bool = False) -> Any:
    """A method of the simulated card's class, which no mode sees: of a test's tensor it gives the values."""
    return _refusing(tensor, force=force or _caller().startswith(ROOMS))


def _globals_there(module: Any, mode: OnDevice, patch: pytest.MonkeyPatch) -> None:
    from saebench.matching.solve import similarity

    as_rows = similarity.as_rows

    @functools.wraps(as_rows)
    def rows_there(rows: Any, *args: Any, **kwargs: Any) -> Tensor:
        made = as_rows(rows, *args, **kwargs)
        return made if isinstance(rows, Tensor) else made.to(mode.device)

    patch.setattr(similarity, "as_rows", rows_there)
    for name, value in vars(module).items():
        if isinstance(value, Tensor) or value is as_rows:
            patch.setitem(vars(module), name, mode.moved(value) if isinstance(value, Tensor) else rows_there)


@contextmanager
def on_device(name: str, module: Any) -> Iterator[None]:
    """A test of a module on `cuda` or `simulated`.

    Raises:
        AssertionError: saebench computed, but nothing on the device.
    """
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if name == "simulated":
            stack.enter_context(simulated_cuda())
            patch.setattr(CudaTensor, "numpy", _numpy)
        stack.enter_context(_built_there(torch.device("cuda", 0)))
        mode = OnDevice(torch.device("cuda", 0))
        patch.setattr(torch, "from_numpy", _from_numpy(mode))
        patch.setattr(torch.testing, "assert_close", _comparing(mode))
        _globals_there(module, mode, patch)
        stack.enter_context(mode)
        yield
    assert mode.there or not mode.here, (
        "saebench computed in this test, and nothing on the device. Put what it works on there (the fixture `device`), "
        "or say why not: pytest.mark.cpu('why')."
    )


def skip_reason(item: pytest.Item, device: str) -> str | None:
    """Why a test of the rooms does not run on this device; None where it does."""
    if device == "cpu" or not in_rooms(item.path):
        return None
    if (mark := item.get_closest_marker("cpu")) is not None:
        return f"about the processor: {mark.args[0]}"
    if device == "simulated" and (mark := item.get_closest_marker("real")) is not None:
        return f"not on a simulated card: {mark.args[0]}"
    return None
