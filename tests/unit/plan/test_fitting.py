"""What would fit is found by trying: each answer is predicted to fit, and the next larger one not to."""

from __future__ import annotations

from saebench.plan.forecast.estimate import gather
from saebench.plan.forecast.fitting import fitting

ENTRY = "{name: topk, architecture: topk, dataset: own, config: {d_sae: 4096, k: 4}}"
BASE = "train: {batch: 1024}\nbudget: {primary: tokens, tokens: 1_000_000}\n"
SMALL = "evaluation: {datasets: [docs], tokens: 100, loss_tokens: 10, density_tokens: 200}\n"


def needs(planner, fakes, entry=ENTRY, tail=SMALL, **more):
    plan = planner(entry, tail, base=BASE, **more)
    catalog = more.get("catalog") or fakes.catalog()
    return gather(plan.cells, plan.cohorts, plan.groups, catalog=catalog, facts=fakes.Facts(), free_bytes=1)


def training(memory):
    return memory.training


def members(memory):
    return memory.members


def test_a_smaller_batch_and_a_smaller_width_are_offered_where_each_fits(planner, fakes):
    weights, batch = 16 * 2 * 32 * 4096, 8 * 4096
    found = dict(fitting(needs(planner, fakes), training, weights + 300 * batch))
    assert found["train.batch: 256"] == weights + 256 * batch
    assert found["d_sae: 1024"] == (weights + 1024 * batch) // 4
    assert len(found) == 2  # there is one seed


def test_together_where_none_is_enough_alone(planner, fakes):
    ((change, size),) = fitting(needs(planner, fakes), training, 100_000)
    assert change.startswith("train.batch: 32 with d_sae: ")
    assert size == 16 * 2 * 32 * 64 + 32 * 8 * 64


def test_a_model_in_half_of_the_bytes_is_offered_where_that_is_enough(planner, fakes):
    found = dict(fitting(needs(planner, fakes), lambda memory: memory.model, 2000))
    assert found == {"models.dtype: bfloat16": 2 * 1000}


def test_smaller_blocks_are_offered_where_a_live_source_holds_too_much(planner, fakes):
    tail = SMALL + "activations: {source: live, shuffle: 1_048_576}\n"
    before = needs(planner, fakes, tail=tail)
    room = before.memory().training - 1
    found = dict(fitting(before, training, room))
    assert found["activations.shuffle: 524288"] <= room
    written = needs(planner, fakes, tail=tail.replace("1_048_576", "524_288"))
    assert written.memory().training == found["activations.shuffle: 524288"]


def test_nothing_is_promised_where_nothing_fits(planner, fakes):
    assert fitting(needs(planner, fakes), training, 10) == []


def test_fewer_seeds_where_the_members_of_a_group_do_not_fit(planner, fakes):
    tail = SMALL + "seeds: {init: [0, 1, 2, 3, 4, 5, 6, 7]}\n"
    one = 8 * 32 * 4096
    found = dict(fitting(needs(planner, fakes, tail=tail), members, 3 * one))
    assert found["seeds.init: 2 of 8"] == 2 * one
    assert found["d_sae: 1024"] == 2 * one
    assert not any(change.startswith("train.batch") for change in found)


def test_a_width_that_an_architecture_refuses_is_not_offered(planner, fakes):
    from dataclasses import replace

    catalog = fakes.catalog()
    topk = catalog.architectures["topk"]

    def cost(config, site):
        if config.d_sae < 4096:
            raise ValueError("too narrow")
        return topk.spec.cost(config, site)

    catalog.architectures["topk"] = replace(topk, spec=replace(topk.spec, cost=cost))
    found = dict(fitting(needs(planner, fakes, catalog=catalog), training, 16 * 2 * 32 * 4096 + 300 * 8 * 4096))
    assert list(found) == ["train.batch: 256"]
