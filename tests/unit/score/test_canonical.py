"""What passes from encode to decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from saebench.api import PluginError, SparseCodes
from saebench.api.errors import NotFinite
from saebench.score.canonical import canonical


def codes(values: list[float], latents: list[int], offsets: list[int], **more: Any) -> SparseCodes:
    return SparseCodes(torch.tensor(values), torch.tensor(latents), torch.tensor(offsets), 5, **more)


def test_by_hand() -> None:
    found = canonical(codes([0.0, 3, -1, -0.0, 2], [4, 3, 1, 0, 2], [0, 3, 4, 5]), {}, "it")
    assert found.values.tolist() == [-1, 3, 2]
    assert found.latents.tolist() == [1, 3, 2]
    assert found.offsets.tolist() == [0, 2, 2, 3]


def test_equals_the_dense_reference_whatever_the_order() -> None:
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(40, 9, generator=draws) * (torch.rand(40, 9, generator=draws) < 0.4)
    plain, whole = SparseCodes.from_dense(z), torch.arange(9).expand(40, 9)
    mixed = whole.gather(1, torch.rand(40, 9, generator=draws).argsort(1))
    for given in (plain, SparseCodes.from_topk(z, whole, 9), SparseCodes.from_topk(z.gather(1, mixed), mixed, 9)):
        found = canonical(given, {}, "it")
        for name in ("values", "latents", "offsets"):
            assert torch.equal(getattr(found, name), getattr(plain, name)), name


def test_values_lose_what_float32_cannot_hold() -> None:
    given = SparseCodes(torch.tensor([1 + 2.0**-40, 1e-60]).double(), torch.tensor([0, 1]), torch.tensor([0, 2]), 5)
    assert canonical(given, {}, "it").values.tolist() == [1.0]
    huge = SparseCodes(torch.tensor([1e300]).double(), torch.tensor([0]), torch.tensor([0, 1]), 5)
    with pytest.raises(NotFinite, match="it: encode returned values that float32 cannot hold"):
        canonical(huge, {}, "it")


def test_memory_attributes_and_subclasses_stay_behind() -> None:
    @dataclass(frozen=True)
    class Loaded(SparseCodes):
        x: str = "x"

    values = torch.arange(1.0, 9)[:2]
    values.x = "x"  # type: ignore[attr-defined]
    given = Loaded(values, torch.tensor([0, 1]), torch.tensor([0, 2]), 5)
    found = canonical(given, {}, "it")
    assert type(found) is SparseCodes
    assert not hasattr(found.values, "x")
    assert found.values.untyped_storage().nbytes() == 8
    assert found.latents.data_ptr() != given.latents.data_ptr()

    class Own(torch.Tensor):
        pass

    with pytest.raises(PluginError, match="codes whose values are a Own, a type of its own"):
        canonical(Loaded(values.as_subclass(Own), given.latents, given.offsets, 5), {}, "it")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "declared", "says"),
    [
        ({"mean": torch.ones(2)}, {}, "the undeclared side value 'mean'"),
        ({"mean": torch.ones(2, 3)}, {}, r"ArchitectureSpec\(side=\{'mean': 3\}\)"),
        ({"mean": torch.ones(2, 3)}, {"mean": 1}, r"'mean' is \[2, 3\] for 2 tokens, .* declares 1 a token"),
        ({"mean": torch.ones(3)}, {"mean": 1}, r"'mean' is \[3\] for 2 tokens"),
        ({}, {"mean": 1}, "left no side value 'mean'"),
        ({"mean": "x"}, {"mean": 1}, "side value 'mean' are a str"),
        ({"mean": torch.tensor([1.0, torch.inf])}, {"mean": 1}, "'mean' is not finite"),
    ],
)
def test_side_values_are_declared(side: Any, declared: dict[str, int], says: str) -> None:
    with pytest.raises(PluginError, match=says):
        canonical(codes([1.0, 2], [0, 1], [0, 1, 2], side=side), declared, "it")


def test_declared_side_values_come_in_float32() -> None:
    side = {"mean": torch.tensor([[1 + 2.0**-40], [2.0]]).double(), "scale": torch.tensor([3, 4])}
    found = canonical(codes([1.0, 2], [0, 1], [0, 1, 2], side=side), {"mean": 1, "scale": 1}, "it").side
    assert found["mean"].tolist() == [[1.0], [2.0]]
    assert (found["scale"].tolist(), found["scale"].dtype) == ([3.0, 4.0], torch.float32)
    assert canonical(codes([1.0, 2], [0, 1], [0, 1, 2], side=side), None, "it").side == {}


def test_a_latent_has_one_value() -> None:
    with pytest.raises(PluginError, match="it: encode gave a latent twice for one token"):
        canonical(codes([1.0, 2], [3, 3], [0, 2]), {}, "it")
    assert canonical(codes([1.0, 2], [3, 3], [0, 1, 2]), {}, "it").n_rows == 2
