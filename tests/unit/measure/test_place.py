"""Where a plan is made for."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch

from saebench.api.errors import MachineError, SuiteError
from saebench.jobs import plan_suite
from saebench.measure.place import CONTEXT_BYTES, Place, place_to_plan, place_to_run
from saebench.measure.profile import Profile
from saebench.plan.forecast.card import Card
from saebench.plan.forecast.devices import DEVICES
from saebench.plan.forecast.rates import TrainingRate, training_key

SUITE = """
schema: 1
name: vectors
datasets:
  truth: {plugin: synthetic, d_in: 16, n_features: 32}
entries:
  - {name: topk, architecture: topk, dataset: truth, config: {d_sae: %s, k: 4}}
train: {batch: 64}
evaluation: {tokens: 500, density_tokens: 500}
budget: %s
"""


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def suite(tmp_path: Path):
    def write(budget: str = "{tokens: 1000}", d_sae: int = 32) -> Path:
        path = tmp_path / "s.yaml"
        path.write_text(SUITE % (d_sae, budget))
        return path

    return write


def test_a_card_that_is_elsewhere_can_be_planned_for_and_not_run_on(no_card):
    place = place_to_plan("A100_80GB")
    assert (place.device, place.here) == ("a100-80gb", False)
    assert place.room().free == place.room().total == 80 * 10**9 - CONTEXT_BYTES
    assert isinstance(place.assumed().assumed, Card)
    with pytest.raises(SuiteError, match="not a device"):
        place_to_run("a100-80gb")


def test_a_near_miss_is_told_which_card_it_may_be(no_card):
    assert place_to_plan(" h100 ").device == "h100"
    with pytest.raises(SuiteError, match=r"^--device A100: .*known\. It is a100-80gb or a100-40gb\.$"):
        place_to_plan("A100")
    with pytest.raises(SuiteError, match=r"^--device \(empty\): "):
        place_to_plan("")
    with pytest.raises(SuiteError, match=r"^--device H100: .*Use cpu, cuda or cuda:N\. .* `saebench plan` alone\.$"):
        place_to_run("H100")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1"])
def test_no_number_of_a_card_is_no_device_without_a_card_either(no_card, device: str):
    with pytest.raises(SuiteError, match=rf"^--device {device}: no device of that name.* 'cuda'"):
        place_to_plan(device)


def test_cuda_without_a_card_is_planned_for_a_usual_one_and_said(no_card):
    place = place_to_plan("cuda:3")
    assert (place.device, place.here) == ("h100", False)
    assert "planned" not in place.device and "--device h200" in (place.remark or "")
    with pytest.raises(MachineError, match="no CUDA device is visible"):
        place_to_run("cuda")


def test_a_card_that_is_here_is_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L40S")
    assert place_to_plan("cuda") == Place("cuda", DEVICES["l40s"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card of tomorrow")
    slowest = place_to_run("cuda").card
    assert slowest is not None and slowest.bytes_per_s == min(card.bytes_per_s for card in DEVICES.values())
    with pytest.raises(MachineError, match="only 1 CUDA"):
        place_to_plan("cuda:1")


def test_the_cpu_is_this_machine(no_card):
    assert place_to_plan("cpu") == Place("cpu") == place_to_run("cpu")
    with pytest.raises(SuiteError, match="kind mps"):
        place_to_plan("mps")
    with pytest.raises(SuiteError, match="Did you mean 'l40s'"):
        place_to_plan("l40")


def test_nothing_is_measured_for_a_card_that_is_elsewhere(suite, no_card):
    said: list[str] = []
    plan = plan_suite(suite(), device="h100", measure=None, say=said.append)
    assert plan.estimate.basis["device"] == "h100" and said == []
    with pytest.raises(SuiteError, match="--measure: h100 is not in this machine"):
        plan_suite(suite(), device="h100", measure=True)


def test_seconds_of_a_card_that_is_elsewhere_are_no_tokens(suite, no_card):
    with pytest.raises(SuiteError, match="h100 is not in this machine"):
        plan_suite(suite("{primary: device_seconds, device_seconds: 1}"), device="h100", measure=None)


def test_a_plan_is_the_same_wherever_it_is_made_for(suite, no_card):
    """But for its estimate: ids and shares are no matter of the device."""
    here, there = plan_suite(suite()).to_json(), plan_suite(suite(), device="h100").to_json()
    assert here.pop("estimate") != there.pop("estimate")
    assert here == there


def test_what_no_card_holds_is_refused(suite, no_card):
    with pytest.raises(MachineError) as caught:
        plan_suite(suite("{tokens: 1000}", d_sae=1 << 27), device="l4")
    found = re.search(
        r"the plan needs ([\d.]+) GB of memory on NVIDIA L4 24 GB, but that has 23.4 GB for tensors", str(caught.value)
    )
    assert found is not None and float(found[1]) > 24
    # what is said to fit does
    (width,) = re.findall(r"d_sae: (\d+) \(", str(caught.value))
    assert plan_suite(suite("{tokens: 1000}", d_sae=int(width)), device="l4").estimate.device_memory_bytes < 24e9
    with pytest.raises(MachineError):
        plan_suite(suite("{tokens: 1000}", d_sae=2 * int(width)), device="l4")


def test_what_was_measured_on_such_a_card_replaces_the_assumption(suite, no_card, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = suite()
    (cell,) = plan_suite(path, device="h100").cells
    steps = -(-cell.tokens // cell.train.batch)

    def on_machine(gpu: str, step_s: float, key: str = training_key(cell)) -> None:
        facts = {"cpu": "a host", "threads": 8, "device": "cuda", "gpu": gpu, "backend": "plain"}
        profile = Profile(facts)
        profile.put("training", key, TrainingRate(0.0, step_s))
        profile.save()

    on_machine("NVIDIA H100 80GB HBM3", 2.0)
    on_machine("NVIDIA H200", 3.0)
    plan = plan_suite(path, device="h100")
    assert (plan.estimate.basis["source"], plan.estimate.basis["gpu"]) == ("measured", "NVIDIA H100 80GB HBM3")
    assert plan.estimate.phases["training"] == pytest.approx(2.0 * steps)
    assert plan_suite(path, device="a10").estimate.basis["source"] == "assumed"
    # what was measured of other cells says nothing
    on_machine("NVIDIA L4", 5.0, "another")
    assert plan_suite(path, device="l4").estimate.basis["source"] == "assumed"
    # a file that is damaged is as none
    for file in (tmp_path / "cache").rglob("speed-*.json"):
        file.write_text("{")
    assert plan_suite(path, device="h100").estimate.basis["source"] == "assumed"


GEMMA = """
schema: 1
name: gemma
models:
  - {id: %s, hookpoints: [layers.5, layers.12, layers.19], context: 1024, dtype: bfloat16}
datasets:
  docs: {plugin: docs}
entries:
  - {name: topk, architecture: topk, dataset: docs, config: {d_sae: 16384}, sweep: {k: [20, 40, 80, 160, 320]}}
  - {name: batch, architecture: batch-topk, dataset: docs, config: {d_sae: 16384}, sweep: {k: [20, 40, 80, 160, 320]}}
  - {name: jump, architecture: jumprelu, dataset: docs, config: {d_sae: 16384}, sweep: {target_l0: [20, 40, 80, 160]}}
  - {name: wide, architecture: topk, dataset: docs, config: {d_sae: 65536}, sweep: {k: [20, 40, 80, 160, 320]}}
  - {name: l1, architecture: relu-l1, dataset: docs, config: {d_sae: 16384}, sweep: {l1_coefficient: [0.1, 0.2, 0.3]}}
seeds: {init: [0, 1, 2]}
train: {batch: 4096}
activations: {source: live}
budget: {tokens: 200_000_000}
"""


def test_two_hundred_cells_of_a_large_model_are_planned_in_seconds_without_its_weights(tmp_path, no_card):
    path = tmp_path / "g.yaml"
    path.write_text(GEMMA % (Path(__file__).parents[3] / "benchmarks" / "suites" / "configs" / "gemma-2-2b"))
    began = time.process_time()  # other programs may run beside this test
    plan = plan_suite(path, device="h100")
    assert time.process_time() - began < 10
    estimate = plan.estimate
    assert len(plan.cells) == len(estimate.cells) == 198
    assert estimate.memory_parts["model"] == 2 * 2_614_341_888
    assert estimate.device_memory_bytes < DEVICES["h100"].memory_bytes
    # days, and not the months that a CPU would take
    assert 24 * 3600 < estimate.seconds < 14 * 24 * 3600
