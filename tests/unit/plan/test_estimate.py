"""Predicted tokens, FLOPs, seconds, disk and memory: by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from saebench.activations.quota import window_bytes
from saebench.api import Findings
from saebench.nn.cost import padded_sizes
from saebench.plan.forecast.rates import (
    DatasetRate,
    ModelRate,
    Rates,
    TrainingRate,
    dataset_key,
    model_key,
    score_key,
    training_key,
)
from saebench.plan.print import print_plan

OWN = "{name: topk, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}}"
EVALUATION = "evaluation: {datasets: [docs], tokens: 100, loss_tokens: 10, density_tokens: 200}\n"
ROW = 32 * 4 + 16
TWO_HOOKS = """\
schema: 1
name: s
models:
  - {id: docs-lm, hookpoints: [layers.0, layers.2], context: 128}
datasets:
  docs: {plugin: docs}
"""


def known(cells, datasets):
    """Round numbers for everything."""
    return Rates(
        "measured",
        {"cpu": "a processor", "threads": 2, "date": "2026-01-02", "device": "cpu"},
        training={training_key(cell): TrainingRate(1.0, 0.5, 0.001) for cell in cells},
        scores={score_key(cell): 3.0 for cell in cells if not cell.control},
        models={model_key(cell.model): ModelRate(1e-6, 0.01, 0.002, 0.004) for cell in cells if cell.model},
        datasets={
            dataset_key(use, cell.model): DatasetRate(7.0, 2.0, 0.0001)
            for cell in cells
            for use in (cell.dataset, *cell.evaluation_datasets)
        },
        write_byte_s=0.0,
    )


def test_the_estimate_by_hand(planner):
    predicted = planner(OWN, EVALUATION).estimate
    assert predicted.train_tokens == 1024  # 16 batches of 64, as the meter counts them
    assert predicted.train_flops == 1024 * (2 * 32 * 64 + 4 * 320) + 16 * 1000
    training = 400 * 1000 + 400 * 2000  # all that the dataset holds, to the hook; making it
    streams = 200 * 1000 + 200 * 1000 + 200 * (1000 + 2000)  # held out, random, the model's own samples
    assert predicted.forward_flops == training + streams + 3 * 10 * 2000 + 10 * 2000
    # rows, token windows of training and of losses, and a manifest of each store
    assert predicted.store_bytes == (400 + 3 * 200) * ROW + window_bytes(400, 128) + window_bytes(200, 128) + 5 * 5_000
    assert predicted.checkpoint_bytes == 8 * 32 * 64
    assert predicted.snapshot_bytes == 0  # it is over before the first one
    cell = 6_500 + 3 * (650 + 250) + 65_000
    assert predicted.record_bytes == cell + 2_000 + 650 + 250 + 8_000 + 12 * 64
    assert predicted.page_bytes == 970_000 + 55_000 + int(0.85 * (cell - 65_000 + 2_900) + 0.4 * 65_000)
    parts = (predicted.store_bytes, predicted.checkpoint_bytes, predicted.snapshot_bytes)
    assert predicted.disk_bytes == sum(parts) + predicted.record_bytes + predicted.page_bytes
    # samples: keys and values of 256 sequences at 128 places, and the logits of a token of each;
    # a cell and its workspace; its weights, a dense scoring batch, and losses of ten tokens
    scoring = 8 * 32 * 64 + 4 * max(4096 * 64, 4 * 4096 * 100) + 4 * 10 * (100 + 32)
    parts = {
        "interpreter": 450_000_000,
        "kernels": 0,
        "model": 4 * 1000,
        "activations": int(256 * (1.2 * 128 * 128 * 4 + 28 * 100)),
        "training": 16 * 2 * 32 * 64 + 64 * 8 * 64,
        "scoring": scoring,
        "groups": 8 * 32 * 64,
        "stores": 3 * 200 * ROW,
    }
    assert predicted.memory_parts == parts
    assert predicted.device_memory_bytes == 4 * 1000 + parts["activations"]
    assert predicted.memory_bytes == predicted.device_memory_bytes + 450_000_000
    assert predicted.basis["source"] == "assumed"
    assert predicted.seconds > 0


def test_snapshots_count_where_training_lasts_and_what_datasets_keep_counts(planner, fakes):
    plan = planner(OWN, EVALUATION)

    def slow(cells, datasets):
        return replace(
            known(cells, datasets), training={training_key(cell): TrainingRate(1.0, 50.0, 0.001) for cell in cells}
        )

    assert planner(OWN, EVALUATION, rates=slow).estimate.snapshot_bytes == 2 * 12 * 2 * 32 * 64
    kept = planner(OWN, EVALUATION, catalog=finding(fakes, "faithful", keeps=1234)).estimate
    assert kept.store_bytes == plan.estimate.store_bytes + 1234


def test_without_a_model_less_memory_is_taken(planner):
    predicted = planner("{name: t, architecture: topk, dataset: truth, config: {d_sae: 64, k: 3}}").estimate
    parts = predicted.memory_parts
    assert (parts["interpreter"], parts["model"], parts["activations"]) == (300_000_000, 0, 0)
    assert predicted.memory_bytes == predicted.device_memory_bytes + 300_000_000
    assert predicted.forward_flops == 0


def finding(fakes, plugin, **found):
    """The catalog in which a look at a dataset finds this."""
    catalog = fakes.catalog()
    registered = catalog.datasets[plugin]
    catalog.datasets[plugin] = replace(
        registered, spec=replace(registered.spec, inspect=lambda options: Findings(**found))
    )
    return catalog


def test_many_epochs_over_little_text_are_stored_once(planner, fakes):
    entry = "{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}"
    tail = EVALUATION.replace("tokens: 100", "tokens: 1_000_000_000")
    # four characters a token: 250 tokens to train on, 50 held out
    catalog = finding(fakes, "docs", characters={"train": 1000, "held-out": 200}, sample="word" * 10)
    plan = planner(entry, tail, catalog=catalog)
    (cell,) = plan.cells
    assert cell.dataset.holds == {"train": 250, "held-out": 50}
    sides = 2 * 200  # random tokens and samples are made as asked for
    assert (
        plan.estimate.store_bytes
        == (250 + 50 + sides) * ROW + window_bytes(250, 128) + window_bytes(50, 128) + 5 * 5_000
    )
    page = " ".join(print_plan(plan).split())
    assert "Data: docs holds about 250 training tokens; 1,000 are 4 epochs." in page
    assert (
        "'docs': about 50 tokens are held out, evaluation.tokens asks for 1,000,000,000. All of them are used" in page
    )
    # what is read of it at plan time is no part of what it is
    assert cell.cell_id == planner(entry, tail).cells[0].cell_id


def test_a_matrix_is_stored_once_and_has_no_tokens(planner, fakes):
    entry = "{name: t, architecture: topk, dataset: truth, config: {d_sae: 64, k: 3}}"
    catalog = finding(fakes, "synthetic", rows={"train": 300, "held-out": 70})
    catalog.datasets["synthetic"] = replace(
        catalog.datasets["synthetic"], spec=replace(catalog.datasets["synthetic"].spec, kind="activations")
    )
    plan = planner(entry, EVALUATION, catalog=catalog)
    assert plan.estimate.store_bytes == (300 + 70) * (16 * 4 + 4) + 2 * 5_000
    assert "truth holds 300 training vectors; 1,000 are 3.3 epochs." in " ".join(print_plan(plan).split())


def test_text_taken_from_other_text_is_at_most_all_of_that(planner, fakes):
    entry = "{name: n, architecture: topk, dataset: near, config: {d_sae: 64, k: 3}}"
    catalog = finding(fakes, "docs", characters={"train": 1000, "held-out": 200}, sample="word" * 10)
    (cell,) = planner(entry, EVALUATION, catalog=catalog).cells
    assert cell.dataset.holds == {"train": 250, "held-out": 50}


def test_all_in_by_hand(planner):
    """A batch is 64 tokens, a forward to the hook 1,000 FLOPs a token, a whole one 2,000; `own` samples 400 tokens."""
    entries = """{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}
    {name: faithful, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}}
    {name: child, architecture: ssae, dataset: docs, init_from: faithful}
    {name: again, architecture: ssae, dataset: own, init_from: faithful}"""
    plan = planner(entries, EVALUATION, rates=known)
    each = {cell.entry: plan.estimate.cells[cell.cell_id] for cell in plan.cells}
    forward = 1024 * 1000
    topk, faithful = each["topk"], each["faithful"]
    assert (topk.all_tokens, topk.all_flops) == (1024, topk.train_flops + forward)
    assert faithful.all_tokens == 1024 + 400
    assert faithful.all_flops == faithful.train_flops + forward + 400 * 2000
    child = each["child"]
    assert child.all_tokens == 1024 + faithful.all_tokens
    assert child.all_flops == child.train_flops + forward + faithful.all_flops
    # its parent has sampled what it is trained on
    assert each["again"].all_tokens == 1024 + faithful.all_tokens
    assert each["again"].all_flops == each["again"].train_flops + forward + faithful.all_flops
    reading = 7.0 + 1000 * 0.0001
    assert topk.all_s == pytest.approx(topk.training_s + reading + 1024 * 1000 * 1e-6, rel=1e-3)
    assert child.all_s == pytest.approx(child.training_s + reading + 1024 * 1000 * 1e-6 + faithful.all_s, rel=1e-3)
    page = " ".join(print_plan(plan).split())
    assert "All-in: a cell alone, with its data, the model's forwards and its parent" in page
    assert "faithful 1,424" in page


def test_seconds_by_hand(planner):
    predicted = planner(OWN, EVALUATION + "seeds: {init: [0, 1], evaluation: [0, 1]}\n", rates=known).estimate
    # sampled once; read as text, 7 s the first time; forwards of 1000 FLOPs at a microsecond each
    own = 7.0 + 400 * 0.0001 + 400 * 0.01 + 400 * 1000 * 1e-6
    assert predicted.data_s == pytest.approx(own)
    assert predicted.phases["training"] == pytest.approx(2 * (1.0 + 16 * 0.5 + 1024 * 0.001))
    held_out = (
        7.0 + 2.0 + 2 * (200 * 0.0001 + 200 * 1e-3 + 10 * 0.004)
    )  # two evaluation seeds, one of them from the cache
    side = 2 * (2 * 200 * 1e-3 + 200 * 0.01)
    assert predicted.scoring_s == pytest.approx(
        held_out + side + 2 * 2 * 3.0 + 2 * 0.1 + 0.15 + 20 * 0.02, rel=1e-3
    )  # checkpoints, records, a pair to match; ten of random rows, and five of data for all latents and for the alive
    assert predicted.seconds == pytest.approx(sum(predicted.phases.values()))
    assert predicted.phases["sampling"] == pytest.approx(400 * 0.01)
    assert predicted.phases["groups"] == pytest.approx(0.15 + 20 * 0.02, rel=1e-2)
    assert all(predicted.phases[kind] > 0 for kind in ("planning", "loading", "held-out", "leaderboard"))
    machine = {"cpu": "a processor", "threads": 2, "date": "2026-01-02", "device": "cpu"}
    assert predicted.basis == {"source": "measured", **machine}


def test_hookpoints_share_a_forward_and_a_reading(planner):
    entry = "{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}"
    one = planner(entry, EVALUATION, rates=known).estimate
    two = planner(entry, EVALUATION, header=TWO_HOOKS, rates=known).estimate
    assert two.data_s == one.data_s
    assert two.store_bytes == 2 * one.store_bytes - window_bytes(1000, 128) - 5_000  # the tokens are the same
    assert two.phases["training"] == 2 * one.phases["training"]


def test_a_live_source_stores_nothing_and_reads_every_epoch(planner):
    stored = planner(OWN, EVALUATION, rates=known).estimate
    live = planner(OWN, EVALUATION + "activations: {source: live}\n", rates=known).estimate
    assert stored.store_bytes - live.store_bytes == 400 * ROW + 5_000
    assert live.data_s - stored.data_s == pytest.approx(600 * 1e-3)
    assert live.forward_flops - stored.forward_flops == 600 * 1000


def test_a_child_in_the_same_cohort_reads_a_live_source_again(planner):
    entries = (
        "{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}\n"
        "{name: c, architecture: ssae, dataset: docs, init_from: a}"
    )
    tail = EVALUATION + "activations: {source: live}\n"
    alone = planner(entries.splitlines()[0], tail, rates=known).estimate
    both = planner(entries, tail, rates=known).estimate
    assert both.data_s - alone.data_s == pytest.approx(1000 * 1e-3)


def test_stores_take_their_precision_and_no_more_than_the_quota(planner):
    full = planner(OWN, EVALUATION).estimate
    half = planner(OWN, EVALUATION + "activations: {dtype: float16}\n").estimate
    assert full.store_bytes - half.store_bytes == 400 * 32 * 2
    assert planner(OWN, EVALUATION + "activations: {quota_gb: 1e-5}\n").estimate.store_bytes == 10_000
    assert planner(OWN, EVALUATION + "activations: {quota_gb: 1e+300}\n").estimate.store_bytes > 10_000


def test_memory_of_cells_side_by_side_is_bounded_by_what_is_there(planner):
    tail = "seeds: {init: [0, 1, 2]}\n"
    one, step, model = 16 * 2 * 32 * 64, 64 * 8 * 64, 4000

    def training(**free):
        return planner(OWN, tail, **free).estimate.memory_parts["training"]

    assert training() == 3 * one + step
    # half of what the model leaves
    both = 2 * (2 * one + step) + model
    assert training(free_bytes=both) == 2 * one + step
    assert training(free_bytes=both - 2) == training(free_bytes=1) == one + step


def test_memory_counts_workspace_that_does_not_grow_with_the_batch(planner, fakes):
    catalog = fakes.catalog()
    topk = catalog.architectures["topk"]

    def cost(config, site):
        return replace(topk.spec.cost(config, site), workspace_bytes=10**6)

    catalog.architectures["topk"] = replace(topk, spec=replace(topk.spec, cost=cost))
    tail = "seeds: {init: [0, 1, 2]}\n"
    more = planner(OWN, tail, catalog=catalog).estimate.memory_parts["training"]
    assert more - planner(OWN, tail).estimate.memory_parts["training"] == 10**6  # cells take their steps in turn


def test_the_members_of_a_group_are_on_the_device_together(planner):
    """Forty seeds, trained one at a time (16 bytes a parameter and a workspace), are compared all at once (4 bytes)."""
    entry = OWN.replace("d_sae: 64", "d_sae: 4096")
    tail = f"seeds: {{init: {list(range(40))}}}\n"
    predicted = planner(entry, tail, free_bytes=1).estimate
    held = 40 * 4 * 2 * 32 * 4096
    assert predicted.memory_parts["groups"] == held + 700_000_000
    parts = predicted.memory_parts
    assert predicted.device_memory_bytes == 4000 + max(held, parts["training"], parts["scoring"], parts["activations"])
    assert predicted.memory_bytes == 450_000_000 + 4000 + held + 700_000_000


def test_a_live_source_holds_blocks_of_every_hookpoint_and_maps_none(planner):
    entry = OWN.replace("own", "docs")
    stored = planner(entry, EVALUATION, header=TWO_HOOKS).estimate.memory_parts
    live = planner(
        entry, EVALUATION + "activations: {source: live, prefetch: 3}\n", header=TWO_HOOKS
    ).estimate.memory_parts
    assert live["training"] - stored["training"] == 2 * (2 + 3) * 1000 * 32 * 4
    assert stored["stores"] == max(2 * 1000 * (32 * 4 + 4), live["stores"])
    assert live["stores"] == 2 * 3 * 200 * ROW


def test_losses_of_all_held_out_data_are_kept_up_to_a_limit(planner, fakes):
    tail = EVALUATION.replace("loss_tokens: 10", "loss_tokens: 1_000_000") + "seeds: {evaluation: [0, 1, 2]}\n"
    facts = fakes.Facts({"docs-lm": fakes.Model(vocab_size=50_000)})
    scoring = planner(OWN, tail, facts=facts).estimate.memory_parts["scoring"]
    kept = 3 * ((320 << 20) + 4 * 32 * 1_000_000)
    assert scoring == 8 * 32 * 64 + kept + 4 * 4 * (1 << 25)


def test_controls_are_scored_as_their_neighbours_and_not_trained(planner):
    entry = OWN.replace("own", "docs")
    without = planner(entry, EVALUATION, rates=known).estimate
    controls = planner(entry, EVALUATION + "controls: true\n", rates=known)
    n = sum(cell.control for cell in controls.cells)
    assert n == 4
    assert controls.estimate.phases["training"] == without.phases["training"]
    assert controls.estimate.scoring_s == pytest.approx(without.scoring_s + n * 3.1)


def test_assumed_seconds_grow_with_the_work(planner):
    small = planner(OWN, EVALUATION).estimate
    wide = planner(OWN.replace("64", "4096"), EVALUATION).estimate
    assert wide.phases["training"] > small.phases["training"]
    assert wide.scoring_s > small.scoring_s
    assert planner(OWN, EVALUATION + "seeds: {init: [0, 1]}\n").estimate.phases["training"] == pytest.approx(
        2 * small.phases["training"]
    )


def test_losses_that_memory_does_not_keep_are_computed_for_every_cell(planner, fakes):
    # log-probabilities of five tokens fill the memory kept for them
    facts = fakes.Facts({"docs-lm": fakes.Model(vocab_size=1 << 24)})
    kept = planner(OWN, EVALUATION, rates=known).estimate
    again = planner(OWN, EVALUATION, rates=known, facts=facts).estimate
    assert again.scoring_s - kept.scoring_s == pytest.approx((10 - 5) * 0.002)


def test_what_could_not_be_measured_is_assumed(planner):
    def nothing(cells, datasets):
        return replace(known([], datasets), remarks=("reading was cut short.",))

    plan = planner(OWN, EVALUATION, rates=nothing)
    bare = planner(OWN, EVALUATION)
    assert plan.estimate.phases["training"] == bare.estimate.phases["training"]
    assert "reading was cut short." in plan.warnings


def test_scoring_of_a_sweep_lies_between_what_was_measured(planner):
    sweep = "{name: topk, architecture: topk, dataset: own, config: {d_sae: 64}, sweep: {k: [4, 8, 16]}}"

    def ends(cells, datasets):
        return Rates(
            "measured", {}, scores={score_key(cell): cell.expected_l0 for cell in cells if cell.expected_l0 != 8}
        )

    plan = planner(sweep, EVALUATION, rates=ends)
    rates, cost = ends(plan.cells, {}), None
    assert [rates.score(cell, cost, 0) for cell in plan.cells] == [4.0, 8.0, 16.0]
    assert [rates.score(replace(cell, expected_l0=None), cost, 0) for cell in plan.cells] == [10.0] * 3
    assert rates.score(replace(plan.cells[0], expected_l0=99.0), cost, 0) == 16.0


def test_a_cell_without_an_l0_does_not_disturb_the_order_of_those_with_one(planner):
    sweep = "{name: topk, architecture: topk, dataset: own, config: {d_sae: 64}, sweep: {k: [4, 8, 16]}}"
    four, eight, sixteen = planner(sweep, EVALUATION).cells
    none = replace(eight, expected_l0=None)
    rates = Rates("measured", {}, scores={score_key(sixteen): 16.0, score_key(none): 7.0, score_key(four): 4.0})
    assert rates.score(eight, None, 0) == 8.0


def test_compiled_products_count_where_the_cpu_compiles_them(planner, fakes):
    @dataclass(frozen=True)
    class Revived(fakes.catalog().architectures["topk"].spec.config):
        aux_coefficient: float = 0.0

    catalog = fakes.catalog()
    topk = catalog.architectures["topk"]
    catalog.architectures["topk"] = replace(topk, spec=replace(topk.spec, config=Revived))

    def kernels(aux, tokens, d_sae=64, **more):
        entry = OWN.replace("64, k: 4", f"{d_sae}, k: 4, aux_coefficient: {aux}")
        base = f"train: {{batch: 64}}\nbudget: {{tokens: {tokens}}}\n"
        return planner(entry, EVALUATION, base=base, catalog=catalog, **more).estimate.memory_parts["kernels"]

    assert kernels(0.1, 6400) == kernels(0.0, 6400, compiles=True) == 0
    assert kernels(0.1, 320, compiles=True) == 4 * 5 * 600_000
    assert kernels(0.1, 6400, compiles=True) == 4 * padded_sizes(32) * 600_000  # half of the latents
    assert kernels(0.1, 640_000, 4096, compiles=True) == 4 * padded_sizes(2048) * 600_000
