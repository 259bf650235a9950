"""Searches in a plan: candidates, shares, ids, refusals, the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest

from saebench.api import CellMetricSpec, MetricInfo
from saebench.cells.plan import Plan
from saebench.host import Registered
from saebench.plan.grouping.cells import score_identity
from saebench.plan.print import print_plan

PLAIN = "{name: plain, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}"
TUNED = (
    "{name: tuned, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}, "
    "tune: {lr: [auto, 0.01, 0.003]}}"
)
SEEDS = "seeds: {init: [0, 1]}\n"


def catalog(fakes: Any, *, version: str = "1") -> Any:
    """Fake catalog with metrics that can decide a search, and some that cannot."""

    def info(id: str, direction: Any, measured: bool = False) -> MetricInfo:
        return MetricInfo(id, "fraction", direction, "reconstruction", "made up", measured)

    infos = (info("fvu", "lower"), info("explained", "higher"), info("size", "neutral"), info("speed", "higher", True))
    found = fakes.catalog()
    found.metrics["reconstruction"] = Registered(
        CellMetricSpec("reconstruction", version, infos, "none:none", ("eval",), ("reconstruction",), core=True),
        "fake-dist", "1.2", "fake",
    )  # fmt: skip
    return found


def of(plan: Plan, entry: str) -> list[Any]:
    return [cell for cell in plan.cells if cell.entry == entry]


def test_every_combination_is_a_candidate_at_every_point_and_seed(planner, fakes):
    entry = TUNED.replace("lr:", "d_sae: [32, 64], lr:").replace("config: {d_sae: 64}, ", "")
    plan = planner(entry, SEEDS, catalog=catalog(fakes), base="train: {batch: 64}\nbudget: {tokens: 4_000}\n")
    cells = of(plan, "tuned")
    assert len(cells) == 2 * 6 * 2
    assert len({cell.cell_id for cell in cells}) == len({cell.score_id for cell in cells}) == 24
    searches = Counter(cell.tune.group for cell in cells)
    assert list(searches.values()) == [12, 12]
    first = cells[0]
    assert first.point == "k4-d_sae32-lr_auto"
    assert (first.tune.point, first.tune.values, first.sweep) == ("k4", {"d_sae": 32, "lr": "auto"}, {"k": 4})
    assert (first.tune.metric, first.tune.direction, first.tune.n_candidates) == ("fvu", "lower", 6)
    assert {cell.d_sae for cell in cells} == {32, 64}
    assert {cell.train.lr for cell in cells if cell.tune.values["lr"] != "auto"} == {0.01, 0.003}
    # one stability group a candidate, each with all seeds
    assert [len(group.cells) for group in plan.groups] == [2] * 12


def test_a_learning_rate_that_is_tried_wins_over_every_other(planner, fakes):
    tail = "budget: {tokens: 1_000}\ntrain: {batch: 64, lr: 0.5}\n"
    cells = of(planner(TUNED, catalog=catalog(fakes), base=tail), "tuned")
    auto = of(planner(PLAIN, catalog=catalog(fakes)), "plain")[0].train.lr
    assert [cell.train.lr for cell in cells[:3]] == [auto, 0.01, 0.003]
    assert len({cell.cell_id for cell in cells}) == 6


def test_candidates_divide_the_share_in_whole_batches_and_seeds_do_not(planner, fakes):
    plan = planner(f"{PLAIN}\n{TUNED}", SEEDS, catalog=catalog(fakes))
    assert {cell.tokens for cell in of(plan, "plain")} == {1_000}
    assert {cell.tokens for cell in of(plan, "tuned")} == {320}  # 1000 // 3 is 333: five batches of 64
    pool = "train: {batch: 64}\nbudget: {tokens: 1_000, pool: true}\n"
    plan = planner(f"{PLAIN}\n{TUNED}", SEEDS, catalog=catalog(fakes), base=pool)
    assert {cell.tokens for cell in of(plan, "plain")} == {500}
    assert {cell.tokens for cell in of(plan, "tuned")} == {128}


def test_flops_are_divided_too(planner, fakes):
    base = "train: {batch: 64}\nbudget: {primary: flops, flops: 30_000_000}\n"
    plan = planner(f"{PLAIN}\n{TUNED}", catalog=catalog(fakes), base=base)
    whole = {cell.sweep["k"]: cell.tokens for cell in of(plan, "plain")}
    for cell in of(plan, "tuned"):
        assert cell.tokens % 64 == 0
        assert 0 <= whole[cell.sweep["k"]] - 3 * cell.tokens < 3 * 64 + 64


def test_what_counts_all_takes_off_a_share_is_paid_once(planner, fakes):
    base = "train: {batch: 64}\nbudget: {tokens: 2_000, counts: all}\n"
    child = (
        "{name: child, architecture: ssae, dataset: own, init_from: {entry: plain, at: {k: 4}}, tune: {tilt: [1, 2]}}"
    )
    entries = f"{PLAIN}\n{child}"
    on_docs = planner(entries.replace("own", "docs"), base=base.replace("all", "train"), catalog=catalog(fakes))
    assert {cell.tokens for cell in of(on_docs, "child")} == {960}
    header = fakes.header
    entries = "{name: own, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}, tune: {lr: [0.1, 0.2]}}"
    cells = of(planner(entries, base=base, header=header, catalog=catalog(fakes)), "own")
    assert {cell.tokens for cell in cells} == {(2_000 - 400) // 2 // 64 * 64}


def test_a_share_under_a_batch_a_candidate_is_refused(refused, fakes):
    rates = ", ".join(str(i) for i in range(1, 14))
    (line,) = refused(TUNED.replace("0.003", f"0.003, {rates}"), catalog=catalog(fakes))
    assert line.startswith("s.yaml:11 entries[0].tune: 16 candidates divide a share of 1,000 tokens;")
    assert "each gets less than one batch of 64 tokens. Try fewer values, raise budget.tokens" in line


@pytest.mark.parametrize(
    ("tune", "line"),
    [
        ("{metric: fuv, lr: [1, 2]}", ".tune.metric: 'fuv' cannot decide a search"),
        ("{metric: size, lr: [1, 2]}", ".tune.metric: 'size' cannot decide a search"),
        ("{metric: speed, lr: [1, 2]}", ".tune.metric: 'speed' cannot decide a search"),
        ("{metric: l0, lr: [1, 2]}", ".tune.metric: 'l0' cannot decide a search"),  # it reads random tokens
        ("{kk: [1, 2]}", ".tune.kk: unknown key. Did you mean 'k'? Allowed: metric, lr, d_sae, k."),
        ("{k: [4, 512]}", ".config.k: got 512 but d_sae is 64."),
        ("{k: [4, many]}", ".config.k: got 'many' but a whole number is expected."),
    ],
)
def test_what_cannot_be_searched(refused, fakes, tune, line):
    entry = f"{{name: tuned, architecture: topk, dataset: docs, config: {{d_sae: 64}}, tune: {tune}}}"
    found = refused(entry, catalog=catalog(fakes))
    assert found[0].startswith("s.yaml:11 entries[0]" + line), found


def test_all_entries_of_a_suite_that_tunes_are_scored_on_the_test_part(planner, fakes):
    alone = planner(PLAIN, "controls: true\n", catalog=catalog(fakes))
    both = planner(f"{PLAIN}\n{TUNED}", "controls: true\n", catalog=catalog(fakes))
    assert {cell.evaluation.part for cell in alone.cells} == {None}
    assert {cell.evaluation.part for cell in both.cells} == {"test"}
    ids = {cell.cell_id: cell.score_id for cell in alone.cells}
    shared = [cell for cell in both.cells if cell.cell_id in ids]
    assert len(shared) == len(alone.cells)  # the same weights, other scores
    assert not any(cell.score_id == ids[cell.cell_id] for cell in shared)


def test_without_a_search_nothing_of_it_is_in_an_identity(planner, fakes):
    cell = planner(PLAIN, catalog=catalog(fakes)).cells[0]
    found = score_identity(cell)
    assert set(found) == {
        "cell",
        "tokens",
        "loss_tokens",
        "density_tokens",
        "seeds",
        "datasets",
        "metrics",
        "inference",
    }
    tuned = of(planner(f"{PLAIN}\n{TUNED}", catalog=catalog(fakes)), "tuned")[0]
    tested = score_identity(tuned)
    assert (tested["part"], tested["search"]) == ("test", tuned.tune.group)


def test_a_search_with_other_candidates_or_another_metric_is_another(planner, fakes):
    def score(entry: str, **more: Any) -> tuple[str, str, str]:
        cell = of(planner(entry, catalog=catalog(fakes, **more)), "tuned")[1]
        return cell.cell_id, cell.score_id, cell.tune.group

    first, other = score(TUNED), score(TUNED.replace("0.003", "0.004"))
    assert first[0] == other[0]
    assert first[1:] != other[1:]
    judged = score(TUNED.replace("lr:", "metric: explained, lr:"))
    assert judged[0] == first[0]
    assert judged[2] != first[2]
    assert score(TUNED, version="2")[2] != first[2]
    assert score(TUNED) == first


def test_controls_are_made_after_entries_that_are_fixed(planner, fakes):
    plan = planner(f"{TUNED}\n{PLAIN}", "controls: true\n", catalog=catalog(fakes))
    by_id = {cell.cell_id: cell for cell in plan.cells}
    parents = {by_id[cell.parent].entry for cell in plan.cells if cell.entry == "control-permuted"}
    assert parents == {"plain"}
    assert not any(cell.tune for cell in plan.cells if cell.control)
    alone = planner(TUNED, "controls: true\n", catalog=catalog(fakes))
    assert {cell.entry for cell in alone.cells if cell.control} >= {"control-permuted", "control-random"}


def test_the_page_shows_candidates_and_the_divided_share(planner, fakes):
    page = print_plan(planner(f"{PLAIN}\n{TUNED}", SEEDS, catalog=catalog(fakes)))
    assert max(map(len, page.splitlines())) <= 80
    text = " ".join(page.split())
    for words in (
        "k4, k8 (x 3)",
        "1,000 tokens a cell or search",
        "tuned tries 3 candidates at each of 2 points (lr auto, 0.01, 0.003)",
        "takes the lowest fvu on validation data",
        "320 tokens a candidate and seed",
        "which no search sees",
    ):
        assert words in text, words
    assert "Search" not in print_plan(planner(PLAIN, catalog=catalog(fakes)))


def test_a_search_is_part_of_the_prediction(planner, fakes):
    base = "train: {batch: 64}\nbudget: {tokens: 960}\n"  # three times 320: the same training in all
    plain = planner(PLAIN, catalog=catalog(fakes), base=base).estimate
    tuned = planner(TUNED, catalog=catalog(fakes), base=base).estimate
    assert tuned.train_tokens == plain.train_tokens
    assert tuned.store_bytes > plain.store_bytes  # the validation store
    assert tuned.scoring_s > plain.scoring_s


def test_it_is_plain_data(planner, fakes):
    cell = of(planner(TUNED, catalog=catalog(fakes)), "tuned")[1]
    assert asdict(cell)["tune"] == {
        "group": cell.tune.group, "point": "k4", "metric": "fvu", "direction": "lower", "spec": "reconstruction",
        "version": "1",
        "values": {"lr": 0.01}, "n_candidates": 3,
    }  # fmt: skip


def test_two_candidates_that_come_to_the_same_are_told(refused, fakes):
    found = refused(TUNED.replace("0.003", "0.002"), catalog=catalog(fakes))  # what auto comes to at this width
    assert "tuned k4-lr_auto s0 and tuned k4-lr0.002 s0: both are the same training run" in found[0]


def test_a_child_that_is_searched_for_has_one_control_with_the_whole_share(planner, fakes):
    tuned = "{name: ssae, architecture: ssae, dataset: near, init_from: plain, tune: {tilt: [0.5, 1], lr: [auto, 0.1]}}"
    base = "budget: {primary: tokens, tokens: 1024}\ntrain: {batch: 64}\n"
    plan = planner(f"{PLAIN}\n{tuned}", base=base, catalog=catalog(fakes))
    candidates = [cell for cell in of(plan, "ssae") if cell.sweep["k"] == 4]
    assert [cell.tokens for cell in candidates] == [256] * 4
    (control,) = [cell for cell in of(plan, "plain-continued") if cell.sweep["k"] == 4]
    assert (control.tokens, control.tune) == (1024, None)
    assert control.train == candidates[0].train
