"""Equal shares, in tokens and FLOPs; what counts; what is too little."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saebench.api import Cost
from saebench.plan.forecast.rates import ModelRate, Rates, TrainingRate, model_key, training_key
from saebench.plan.sharing.budget import tokens_for_flops, tokens_for_seconds

A = "{name: a, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}"
B = "{name: b, architecture: topk, dataset: own, config: {d_sae: 128, k: 4}}"


def shares(plan):
    return {(cell.entry, cell.point): cell.tokens for cell in plan.cells if not cell.control}


def test_seeds_and_sweeps_never_divide(planner):
    plan = planner(f"{A}\n{B}", "seeds: {init: [0, 1]}\n")
    assert shares(plan) == {("a", "k4"): 1000, ("a", "k8"): 1000, ("b", "default"): 1000}
    assert plan.budget["share"] == 1000


def test_a_pool_is_shared_equally_among_entries(planner):
    plan = planner(f"{A}\n{B}", base="train: {batch: 64}\nbudget: {tokens: 1001, pool: true}\n")
    assert set(shares(plan).values()) == {500}
    assert (plan.budget["total"], plan.budget["share"], plan.budget["entries"]) == (1001, 500, 2)


def test_flops_become_whole_batches_within_the_share(planner):
    flops = 50_000_000
    plan = planner(f"{A}\n{B}", base=f"train: {{batch: 64}}\nbudget: {{primary: flops, flops: {flops}}}\n")
    for cell in plan.cells:
        step = 64 * (2 * 32 * cell.d_sae + cell.expected_l0 * 320) + 1000  # the fake cost, by hand
        assert cell.tokens % 64 == 0
        assert cell.tokens // 64 == flops // step
    k4, k8, wide = (cell.tokens for cell in plan.cells)
    assert k4 > k8 > wide


def test_tokens_for_flops_by_hand():
    cost = Cost(
        0,
        0,
        train_flops_per_token=10,
        train_flops_per_active=3,
        step_flops=7,
        encode_flops_per_token=0,
        workspace_bytes_per_token=0,
        expected_l0=2.5,
    )
    # a batch of 4: 40 dense, 10 active latents of 3, 7 once
    assert tokens_for_flops(77 * 5 + 76, cost, batch=4, d_sae=99) == 20
    assert tokens_for_flops(76, cost, batch=4, d_sae=99) == 0
    assert tokens_for_flops(-1, cost, batch=4, d_sae=99) == 0


def test_tokens_for_seconds_by_hand():
    assert tokens_for_seconds(1.0, 0.3, 8) == 24
    assert tokens_for_seconds(0.2, 0.3, 8) == 0
    assert tokens_for_seconds(-1.0, 0.3, 8) == 0


def test_without_an_expected_l0_flops_count_every_latent(planner):
    loose = "{name: a, architecture: loose, dataset: docs, config: {d_sae: 64}}"
    plan = planner(loose, base="train: {batch: 64}\nbudget: {primary: flops, flops: 1e9}\n")
    assert plan.cells[0].tokens == int(1e9) // (64 * (2 * 32 * 64 + 64 * 320) + 1000) * 64
    assert "aims at no L0" in plan.warnings[0]


SECONDS = "train: {batch: 64}\nbudget: {primary: device_seconds, device_seconds: 10}\n"


def at(seconds_per_latent, sample_s=0.001):
    """A measurement under which a step takes that long for each of its latents; counts how often it was asked."""

    def measure(cells, datasets):
        measure.calls += 1
        assert all(cell.tokens == 64 for cell in cells), "shares are not known yet"
        assert "own" not in datasets or datasets["own"].kind == "generated"
        training = {training_key(cell): TrainingRate(0.5, cell.d_sae * seconds_per_latent, 0.0) for cell in cells}
        models = {model_key(cell.model): ModelRate(1e-9, sample_s, 1e-6, 1e-6) for cell in cells}
        return Rates("measured", {"cpu": "a processor", "threads": 2, "date": "2026-01-02"}, training, models=models)

    measure.calls = 0
    return measure


def test_device_seconds_need_a_measurement(refused):
    found = refused(A, base="budget: {primary: device_seconds, device_seconds: 60}\n")
    assert len(found) == 1
    assert found[0].startswith("s.yaml:12 budget.primary: device_seconds needs a calibration: some training steps")


def test_device_seconds_become_whole_batches(planner):
    measure = at(0.001)
    plan = planner(f"{A}\n{B}", "seeds: {init: [0, 1]}\ncontrols: true\n", base=SECONDS, calibrate=measure)
    assert measure.calls == 1
    # steps of 0.064 s and 0.128 s in 10 s: 156 and 78 of them
    assert shares(plan) == {("a", "k4"): 156 * 64, ("a", "k8"): 156 * 64, ("b", "default"): 78 * 64}
    calibration = plan.budget["calibration"]
    assert calibration["cpu"] == "a processor"
    assert sorted(calibration["seconds_per_step"].values()) == [0.064, 0.064, 0.128]
    assert plan.budget["share"] == 10.0
    assert plan.estimate.basis["source"] == "measured"
    assert plan.estimate.phases["training"] == pytest.approx(6 * 0.5 + 4 * 156 * 0.064 + 2 * 78 * 0.128, abs=1e-3)


def test_a_pool_of_seconds_is_shared_without_rounding(planner):
    base = SECONDS.replace("device_seconds: 10", "device_seconds: 7, pool: true")
    plan = planner(f"{A}\n{B}", base=base, calibrate=at(0.001))
    assert plan.budget["share"] == 3.5
    assert shares(plan)["b", "default"] == int(3.5 / 0.128) * 64


def test_a_calibration_is_frozen(planner):
    first = planner(f"{A}\n{B}", base=SECONDS, calibrate=at(0.001))
    slower = at(0.002)
    again = planner(f"{A}\n{B}", base=SECONDS, calibrate=slower, calibration=first.budget["calibration"])
    assert [cell.cell_id for cell in again.cells] == [cell.cell_id for cell in first.cells]
    assert again.budget == first.budget
    # without any measurement too; and a calibration of other contenders is none
    assert planner(f"{A}\n{B}", base=SECONDS, calibration=first.budget["calibration"]).budget == first.budget
    other = B.replace("128", "256")
    slower.calls = 0
    mixed = planner(f"{A}\n{other}", base=SECONDS, calibrate=slower, calibration=first.budget["calibration"])
    assert slower.calls == 1
    assert shares(mixed)["a", "k4"] == int(10 / 0.128) * 64


@pytest.mark.parametrize("damaged", [{}, {"seconds_per_step": {}}, {"seconds_per_step": 3}])
def test_a_damaged_calibration_is_made_anew(planner, damaged):
    measure = at(0.001)
    assert shares(planner(A, base=SECONDS, calibrate=measure, calibration=damaged))["a", "k4"] == 156 * 64
    assert measure.calls == 1


def test_counts_all_takes_sampling_and_parents_off_the_seconds(planner, refused):
    base = SECONDS.replace("10}", "10, counts: all}")
    plan = planner(f"{A}\n{B}", base=base, calibrate=at(0.001, sample_s=0.01))
    assert shares(plan)["a", "k4"] == 156 * 64
    assert shares(plan)["b", "default"] == int((10 - 400 * 0.01) / 0.128) * 64
    found = refused(B, base=base, calibrate=at(0.001, sample_s=0.1))
    assert "making its data and its parent cost 40 device seconds of its share of 10" in found[0]


def test_fewer_seconds_than_one_step(refused):
    found = refused(A, base=SECONDS.replace("10}", "0.01}"), calibrate=at(0.001))
    assert "a share of 0.01 device seconds gives 0 tokens but one batch of entries[0] (a) is 64 tokens." in found[0]


def test_an_entry_that_cannot_be_measured_is_named(refused):
    def measure(cells, datasets):
        found = at(0.001)(cells, datasets)
        return replace(found, training={key: rate for key, rate in found.training.items() if rate.step_s < 0.1})

    found = refused(f"{A}\n{B}", base=SECONDS, calibrate=measure)
    assert found == [
        "s.yaml:12 entries[1]: its seconds could not be measured on this machine: its training steps (or its model's "
        "sampling) fail, "
        "or need more memory than there is. Run it with `primary: tokens` to see why."
    ]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("{tokens: 63}", "s.yaml:14 budget.tokens: a share of 63 tokens but one batch of entries[0] (a) is 64 tokens."),
        ("{tokens: 100, pool: true}", "a share of 50 tokens (the pool of 100 shared by 2 entries) but one batch"),
        (
            "{primary: flops, flops: 1000}",
            "s.yaml:14 budget.flops: a share of 1,000 flops gives 0 tokens but one batch",
        ),
    ],
)
def test_less_than_one_batch(refused, budget, said):
    assert said in refused(f"{A}\n{B}", base=f"train: {{batch: 64}}\nbudget: {budget}\n")[0]


def test_counts_all_takes_data_and_parents_off_the_share(planner, refused):
    base = "train: {batch: 64}\nbudget: {tokens: 1000, counts: all}\n"
    plan = planner(f"{A}\n{B}", base=base)
    assert shares(plan) == {("a", "k4"): 1000, ("a", "k8"): 1000, ("b", "default"): 600}
    child = "{name: child, architecture: ssae, dataset: near, init_from: a}"
    found = refused(f"{A}\n{child}", base=base)
    assert found == [
        "s.yaml:12 entries[1]: making its data and its parent cost 1,000 tokens of its share of 1,000, and `counts: "
        "all` makes them count; "
        "what is left is under one batch of 64 tokens. Raise budget.tokens or use `counts: train`."
    ]
    flops = planner(B, base="train: {batch: 64}\nbudget: {primary: flops, flops: 1e8, counts: all}\n").cells[0].tokens
    assert flops == (int(1e8) - 400 * 2000) // (64 * (2 * 32 * 128 + 4 * 320) + 1000) * 64


def test_memory_over_the_limit_and_idle_figures_are_told(planner):
    plan = planner(A, base="train: {batch: 64}\nbudget: {tokens: 1000, flops: 1e12, memory_gb: 1e-6}\n")
    assert plan.warnings[0] == "budget.flops is given but the primary is tokens: flops does not stop a cell."
    assert "entries[0] (a) needs 0.00 GB to train, over memory_gb 1e-06: its cells end as over_budget." in plan.warnings
    assert len(plan.cells) == 2
