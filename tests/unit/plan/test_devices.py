"""Cards that are elsewhere: the table, and seconds from it by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from saebench.api import Cost, SuiteError
from saebench.cells.load import PLAIN
from saebench.plan.forecast import card as assumed
from saebench.plan.forecast.card import Card
from saebench.plan.forecast.devices import DEFAULT, DEVICES, find_device, known_as
from saebench.plan.forecast.rates import Rates
from saebench.plan.print import print_plan

OWN = "{name: topk, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}}"
EVALUATION = "evaluation: {datasets: [docs], tokens: 100, loss_tokens: 10, density_tokens: 200}\n"


class Deep:
    """What a card's seconds rest on, of a language model."""

    n_layers, d_model, vocab_size, n_parameters = 10, 1000, 100_000, 10**9

    def forward_flops_per_token(self, path=None):
        return 2 * 10**9


def on(name):
    return lambda cells, datasets: Rates(assumed=Card(DEVICES[name]))


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H100 NVL", None),
        ("Tesla T4", None),
    ],
)
def test_a_card_is_known_by_the_name_that_torch_gives_it(title, name):
    found = known_as(title)
    assert (found.name if found is not None else None) == name


def test_every_device_is_named_by_itself_and_says_where_its_figures_stand():
    assert DEFAULT in DEVICES
    for name, device in DEVICES.items():
        assert find_device(name.upper()) is device and device.name == name
        assert device.source and device.half_flops > device.float32_flops > 1e12
        assert 1e11 < device.bytes_per_s < 1e13 and 1e10 < device.memory_bytes < 2e11


def test_an_unknown_device_is_refused_with_the_nearest_and_all():
    with pytest.raises(SuiteError, match=r"^--device h10: .* Did you mean 'h100'\? Allowed: cpu, cuda, h200, h1.*\.$"):
        find_device("h10")


def test_a_step_takes_its_products_its_gathers_and_its_passes(planner):
    (cell,) = planner(OWN, EVALUATION).cells
    card = replace(DEVICES["h100"], float32_flops=1e13, bytes_per_s=1e12)
    cell = replace(cell, d_sae=1000, train=replace(cell.train, batch=10_000))
    cost = Cost(10**6, 0, 10**6, 100, 10**9, 5 * 10**5, 0, expected_l0=20.0)
    rate = Card(card).training(cell, cost)
    product, bandwidth = 0.8e13, 0.72e12
    dense = (10_000 * 1e6 + 1e9) / product
    gathers = 10_000 * 20 * 100 * 2 / bandwidth
    passes = (4 * 12 * 10_000 * 1000 + 64 * 1e6) / bandwidth
    assert rate.step_s == pytest.approx(dense + gathers + passes)
    # where no L0 is aimed at, all latents may be active: then a dense product is cheaper than gathers
    unknown = Card(card).training(cell, replace(cost, expected_l0=None)).step_s
    assert unknown == pytest.approx(dense + 10_000 * 1000 * 100 / product + passes)
    # a small step takes what launching it takes
    tiny = replace(cell, d_sae=1, train=replace(cell.train, batch=1))
    assert Card(card).training(tiny, replace(cost, train_flops_per_token=1, step_flops=1, n_parameters=1)).step_s == (
        assumed.STEP_LAUNCH_S
    )


def test_a_forward_takes_weights_attention_and_logits():
    use = SimpleNamespace(context=128, load=PLAIN)
    device = DEVICES["h100"]
    rate = Card(device).model(use, Deep())
    token_s = (2e9 + 4 * 128 * 1000 * 10) / (0.6 * 67e12)
    assert rate.flop_s * 2e9 == pytest.approx(token_s)
    logits_s = 4 * 6 * 100_000 / (0.72 * 3.35e12)
    assert rate.clean_token_s == pytest.approx(token_s + logits_s)
    assert rate.loss_token_s == pytest.approx(3 * rate.clean_token_s)
    half = SimpleNamespace(context=128, load=replace(PLAIN, dtype="bfloat16"))
    assert Card(device).model(half, Deep()).flop_s == pytest.approx(rate.flop_s * (0.6 * 67) / (0.3 * 989))
    # sampled one position at a time, all weights are read for each row of 256 sequences
    launched = (10 * 25 * 6e-6 + 4e9 / (0.72 * 3.35e12)) / 256
    assert rate.sample_token_s == pytest.approx(max(token_s, launched) + logits_s)


def test_a_plan_for_a_card_says_what_it_rests_on_and_what_each_cell_takes(planner):
    plan = planner(OWN, EVALUATION + "controls: true\n", rates=on("h100"))
    basis = plan.estimate.basis
    assert (basis["source"], basis["device"]) == ("assumed", "h100")
    page = " ".join(print_plan(plan).split())
    assert "assumed from the data sheet of NVIDIA H100 SXM 80 GB (67 TFLOP/s in float32" in page
    assert "no card was measured" in page and "A cell by itself" in page
    assert set(plan.estimate.cells) == {cell.cell_id for cell in plan.cells}
    one = plan.estimate.cells[next(cell.cell_id for cell in plan.cells if not cell.control)]
    assert one.train_flops == plan.estimate.train_flops
    assert one.training_s == plan.estimate.phases["training"] > 0
    assert one.device_bytes == 16 * 2 * 32 * 64 + 64 * 8 * 64
    assert one.disk_bytes > plan.estimate.checkpoint_bytes // len(plan.cells)
    assert sum(cell.scoring_s for cell in plan.estimate.cells.values()) == pytest.approx(
        plan.estimate.phases["scoring"], abs=0.01
    )
    controls = [plan.estimate.cells[cell.cell_id] for cell in plan.cells if cell.control]
    assert controls and all(cell.training_s == 0 and cell.train_flops == 0 for cell in controls)


def test_a_slower_card_takes_longer(planner):
    entry = OWN.replace("d_sae: 64", "d_sae: 4096")
    base = "train: {batch: 1000}\nbudget: {tokens: 1_000_000}\n"
    seconds = [
        planner(entry, EVALUATION, base=base, rates=on(name)).estimate.seconds for name in ("h200", "h100", "l4")
    ]
    assert sorted(seconds) == seconds and len(set(seconds)) == 3


def test_reading_a_store_onto_a_card_counts(planner, fakes):
    stored = planner(OWN, EVALUATION, rates=on("h100")).estimate.phases["activations"]
    live = planner(OWN, EVALUATION + "activations: {source: live}\n", rates=on("h100")).estimate.phases["activations"]
    read, written = 1000 * (32 * 4 + 4) * assumed.READ_BYTE_S, (400 * (32 * 4 + 16) + 5000) * 2e-9
    forwards = Card(DEVICES["h100"]).model(SimpleNamespace(context=128, load=PLAIN), fakes.Model()).flop_s * 1000
    assert stored == pytest.approx(read + written + 400 * forwards, abs=2e-3)
    assert live == pytest.approx(1000 * forwards, abs=2e-3)
