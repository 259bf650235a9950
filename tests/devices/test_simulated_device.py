"""The simulated card refuses what a real one refuses, counts what makes it wait, and computes true values."""

from __future__ import annotations

import copy
import re
import threading

import pytest
import torch
from simulated_device import CUDA, NOT_DETERMINISTIC, Card, HostWait, simulated_cuda
from torch import nn


@pytest.fixture
def card():
    with simulated_cuda() as card:
        yield card


def places(card: Card) -> list[str]:
    return [place.partition(": ")[2] for place in card.waits]


def test_what_is_made_on_the_card_lies_on_it_and_nothing_else_does(card: Card) -> None:
    there = torch.zeros(2, 3, device="cuda")
    made = (
        torch.ones(2, 3).to("cuda"),
        torch.ones(2, 3).cuda(),
        torch.tensor([1.0], device="cuda:0"),
        torch.as_tensor([1.0], device=CUDA),
        there.new_zeros(2),
        torch.zeros_like(there),
        there[:1],
        there.T @ there,
        torch.arange(3, device=there.device),
        nn.Linear(3, 2, device="cuda")(there),
    )
    assert all(tensor.device == CUDA and tensor.is_cuda for tensor in made)
    elsewhere = (torch.zeros(2), there.cpu(), there.to("cpu"), torch.zeros_like(there, device="cpu"))
    assert {tensor.device.type for tensor in elsewhere} == {"cpu"}
    with torch.device("meta"):
        assert {tensor.device.type for tensor in (torch.zeros(2), torch.tensor([1.0]))} == {"meta"}
    with torch.device("cuda"):
        assert {tensor.device for tensor in (torch.zeros(2), torch.tensor([1.0]))} == {CUDA}
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(2, device="cuda:1")


def test_values_and_gradients_are_those_of_the_processor(card: Card) -> None:
    def train(device: str) -> tuple[list[float], nn.Module]:
        draws = torch.Generator().manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        for parameter in module.parameters():
            nn.init.normal_(parameter, generator=draws)
        first = module[0].weight
        module.to(device)
        assert module[0].weight is first and isinstance(first, nn.Parameter)
        x = torch.randn(16, 4, generator=draws).to(device)
        adam, losses = torch.optim.Adam(module.parameters(), fused=True), []
        for _ in range(5):
            adam.zero_grad()
            loss = (module(x) - x).square().sum()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        return losses, copy.deepcopy(module).requires_grad_(False).cpu()

    (here, ours), (there, theirs) = train("cpu"), train("cuda")
    assert here == there
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_two_places_do_not_meet_in_one_operator(card: Card) -> None:
    there, here = torch.ones(2, 2, device="cuda"), torch.ones(2, 2)
    scalar = torch.tensor(2.0)
    for meet in (
        lambda: there + here,
        lambda: here.add_(there),
        lambda: there @ here,
        lambda: torch.cat([there, here]),
        lambda: torch.mm(there, there, out=here),
        lambda: torch.where(there > 0, there, here),
        lambda: here[torch.tensor([0], device="cuda")],
        lambda: here * scalar.cuda(),
        lambda: scalar.add_(scalar.cuda()),
        lambda: there.index_add_(0, torch.tensor([0]), there[:1]),
    ):
        with pytest.raises(RuntimeError, match="at least two devices"):
            meet()
    assert (there * scalar).device == CUDA
    assert there[torch.tensor([0])].device == CUDA
    assert places(card)[-1] == "indices are copied to the card"


def test_a_card_has_no_numpy_its_own_generators_and_no_products_of_integers(card: Card) -> None:
    there = torch.ones(2, 2, device="cuda")
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        there.numpy()
    with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
        torch.randn(2, device="cuda", generator=torch.Generator())
    assert torch.randn(2, device="cuda", generator=torch.Generator("cuda").manual_seed(1)).device == CUDA
    with pytest.raises(RuntimeError, match="not implemented"):
        there.long() @ there.long()


def test_what_torch_documents_as_not_deterministic_is_refused_when_asked_for(card: Card) -> None:
    x, ids = torch.ones(4, device="cuda"), torch.zeros(4, dtype=torch.long, device="cuda")
    refused = (
        lambda: torch.bincount(ids, x),
        lambda: x.cumsum(0),
        lambda: x.view(2, 2).median(1),
        lambda: torch.histc(x),
        lambda: x.put_(ids, x.clone()),
    )
    fine = (lambda: torch.bincount(ids), lambda: ids.cumsum(0), lambda: x.median(), lambda: x.index_add(0, ids, x))
    for call in (*refused, *fine):
        call()
    torch.use_deterministic_algorithms(True)
    try:
        for call in refused:
            with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
                call()
        for call in fine:
            call()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_list_of_them_is_torchs_own() -> None:
    listed = (torch.use_deterministic_algorithms.__doc__ or "").partition("will throw a")[2].lower().replace("_", "")
    names = {re.sub(r"_(forward|backward)$|_$", "", str(operator).rpartition(".")[2]) for operator in NOT_DETERMINISTIC}
    words = {
        "nll_loss2d": "nllloss",
        "grid_sampler_2d": "gridsample",
        "upsample_linear1d": "linear",
        "upsample_bilinear2d": "bilinear",
    }
    assert not {name for name in names if words.get(name, name.replace("_", "")) not in listed}


def test_reading_values_is_counted_by_place(card: Card) -> None:
    there = torch.arange(4.0, device="cuda")
    for read in (
        lambda: there.sum().item(),
        lambda: bool(there.any()),
        lambda: there.tolist(),
        lambda: there[there > 1],
        lambda: there.nonzero(),
        lambda: torch.repeat_interleave(there, there.long()),
        lambda: there.cpu(),
    ):
        before = card.waits.total()
        read()
        assert card.waits.total() == before + 1
    assert all(place.startswith("tests/devices/test_simulated_device.py:") for place in card.waits)
    before = card.waits.total()
    there[there > 1] = 0.0  # a fill by mask needs no size
    torch.repeat_interleave(there, there.long(), output_size=1)
    assert card.waits.total() == before and there.tolist() == [0, 1, 0, 0]


def test_a_hot_region_refuses_what_waits_and_what_is_made_elsewhere(card: Card) -> None:
    there = torch.ones(4, device="cuda")

    def reads() -> float:
        return float(there.sum())

    for fault, what in (
        (reads, "a value is read"),
        (lambda: there * torch.tensor(2.0), "made on the processor"),
        (lambda: torch.zeros(4), "made on the processor"),
        (lambda: there.cpu(), "copied from the card"),
    ):
        with card.hot("a step"), pytest.raises(HostWait, match=f"{what}.*inside of a step"):
            fault()
    place = "tests/devices/test_simulated_device.py:" + reads.__qualname__
    with card.hot("a step", allowed={place}):
        assert reads() == 4.0
    assert reads() == 4.0


def test_memory_is_counted_and_ends(card: Card) -> None:
    assert torch.cuda.is_available() and torch.cuda.get_device_name("cuda") == "simulated"
    kept = torch.zeros(1000, device="cuda")
    view = kept[10:]
    assert torch.cuda.memory_allocated() == 4000
    del kept
    assert torch.cuda.memory_allocated() == 4000 and view.shape == (990,)
    del view
    assert torch.cuda.memory_allocated() == 0 and torch.cuda.max_memory_allocated() == 4000
    assert torch.cuda.mem_get_info("cuda") == (card.total_bytes, card.total_bytes)
    with pytest.raises(ValueError, match="with a specified index"):  # as torch: this one takes no `cuda` alone
        torch.cuda.set_per_process_memory_fraction(0.5, "cuda")
    torch.cuda.set_per_process_memory_fraction(0.5, "cuda:0")
    assert card.limit_bytes == card.total_bytes // 2
    with simulated_cuda(memory_bytes=1000), pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.zeros(300, device="cuda")


def test_threads_of_the_block_see_the_card_and_nothing_is_left_of_it() -> None:
    found: list[torch.device] = []
    with simulated_cuda():
        thread = threading.Thread(target=lambda: found.append(torch.ones(2).to("cuda").device))
        thread.start()
        thread.join()
    assert found == [CUDA]
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "simulated"
    assert type(torch.Generator()).__module__.startswith("torch")
