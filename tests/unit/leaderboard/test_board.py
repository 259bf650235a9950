from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.api.errors import SuiteError
from saebench.leaderboard.names import model_title
from saebench.leaderboard.pages.markdown import readme_markdown
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.row import Row, Shown
from saebench.leaderboard.tables.site import Board

Records = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def board(folder: Path) -> Board:
    return make_board(merged_records([folder]))


def rows_of(board: Board, site: int = 0) -> dict[str, Row]:
    found = board.suites[0].sites[site]
    return {row.label: row for row in found.rows + found.controls}


def shown(row: Row, id: str) -> Shown:
    return row.shown(TableColumn(id, id, "", percent=id == "dead-fraction"))


def rebuilt(tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]) -> Board:
    return make_board(merged_records([generator.write_folder(tmp_path, *records)]))


def test_sites_are_a_model_and_a_synthetic_track(board: Board) -> None:
    titles = [site.title for site in board.suites[0].sites]
    assert titles == ["docs-lm, layers.2", "truth (synthetic, known features)"]
    truth = board.suites[0].sites[1]
    assert "truth-mcc" in {column.id for column in truth.columns}
    assert "ce-recovered-mean" not in {column.id for column in truth.columns}


def test_controls_are_apart_and_never_ranked(board: Board) -> None:
    site = board.suites[0].sites[0]
    assert {row.entry for row in site.controls} == {
        "control-random",
        "control-permuted",
        "control-pca",
        "control-identity",
    }
    assert all(row.standing is None for row in site.controls)
    assert not any("control" in name for level in site.levels for name in level.order)


def test_a_row_is_the_mean_of_its_seeds(board: Board, records: tuple[Records, Records]) -> None:
    row = rows_of(board)["topk k8"]
    values = [record["facts"]["metrics"]["fvu"]["value"] for path, record in records[0].items() if "/topk/k8-" in path]
    assert row.metrics["fvu"].value == pytest.approx(sum(values) / 3)
    assert row.metrics["fvu"].n == 3
    assert row.metrics["fvu"].stderr == pytest.approx(0.0012)
    assert shown(row, "dead-fraction").value == pytest.approx(100 * row.metrics["dead-fraction"].value)


def test_ranks_are_within_a_sparsity_level_and_ties_are_told(board: Board) -> None:
    rows = rows_of(board)
    assert rows["topk k8"].standing.level == 8
    assert rows["topk k16"].standing.level == 16
    assert rows["topk k8"].standing.best == rows["faithful k8"].standing.best == 1
    assert "faithful" in rows["topk k8"].standing.ties
    assert rows["expander k8"].standing.best == rows["expander k8"].standing.worst
    assert rows["ssae k8"].standing.best is None
    assert rows["ssae k8"].standing.reason == "2 of 3 seeds"


def test_all_contenders_of_a_level_are_read_at_one_price(board: Board) -> None:
    level = board.suites[0].sites[0].levels[1]
    found = level.metrics["variance-explained"].contenders
    assert level.l0 == 16
    assert {name for name, item in found.items() if item.standing.best is not None} >= {"topk", "faithful", "expander"}
    for item in found.values():
        assert item.l0 is None or item.l0 == pytest.approx(level.price, rel=0.02)
        assert item.standing.best is None or item.n == 3


def test_seeds_with_equal_weights_are_one_training_and_what_depends_on_the_batch_is_not_ranked(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    for path, record in records[0].items():
        seed = record["facts"]["init_seed"]
        if "/topk/" in path:
            record["facts"]["weights_digest"] = "same"
        elif "/faithful/" in path:
            record["facts"]["weights_digest"] = f"{path}"
            record["facts"]["batch_coupled"] = True
        elif "/jumprelu/" in path:
            record["facts"]["weights_digest"] = "two" if seed < 2 else "other"
    rows = rows_of(rebuilt(tmp_path, generator, records))
    assert rows["topk k8"].standing.reason == "all seeds have the same weights: one training, and no interval"
    assert rows["topk k8"].copies == (1, 2)
    assert rows["faithful k8"].standing.reason == "its codes of a token depend on the other tokens of the batch"
    (jumprelu,) = [row for label, row in rows.items() if label.startswith("jumprelu target-l0-8")]
    assert jumprelu.standing.reason == "2 of 3 seeds"
    assert rows["expander k8"].unranked is None


def test_failed_cells_are_listed_and_their_row_says_how_many_seeds(board: Board) -> None:
    (failed,) = board.suites[0].not_ok
    assert (failed.cell, failed.status) == ("ssae k8 s2", "diverged")
    row = rows_of(board)["ssae k8"]
    assert (row.seeds, row.planned_seeds) == ((0, 1), (0, 1, 2))
    assert board.counts == {"ok": 36, "diverged": 1}


def test_a_null_seed_is_left_out_of_the_mean_and_counted(board: Board) -> None:
    found = shown(rows_of(board)["expander k16"], "kl")
    assert found.n == 2
    assert found.value is not None


def test_stability_comes_from_the_group_over_the_same_scores(
    board: Board, tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    assert shown(rows_of(board)["topk k8"], "sfr").value is not None
    stale = records[1]["groups/quickstart/topk/k8.json"]
    stale["facts"]["members"][0]["score_id"] = "0" * 64
    assert shown(rows_of(rebuilt(tmp_path, generator, records))["topk k8"], "sfr").value is None


def test_all_in_cost_adds_data_and_parent(board: Board) -> None:
    rows = rows_of(board)
    for label in ("faithful k8", "ssae k16"):
        assert (shown(rows[label], "cost:train").value, shown(rows[label], "cost:all").value) == (
            150_000,
            300_000,
        )
    assert shown(rows["topk k8"], "cost:all").value == 150_000


def test_all_in_of_records_adds_up_by_hand(records: tuple[Records, Records], board: Board) -> None:
    """As an outsider would: training, data, the parent's all-in, and in FLOPs and seconds the model's forwards."""
    rows = rows_of(board)
    for label, path in (("topk k8", "/topk/k8-s"), ("faithful k8", "/faithful/k8-s"), ("ssae k16", "/ssae/k16-s")):
        found = [record for name, record in records[0].items() if path in name and record["facts"]["status"] == "ok"]
        for unit, forwards in (("tokens", 0), ("flops", 1)):
            sums = [
                sum(record["facts"]["spent"][kind][unit] for kind in ("train", "data", "parent"))
                + forwards * record["facts"]["spent"]["forward"][unit]
                for record in found
            ]
            assert sums == [record["facts"]["spent"]["all"][unit] for record in found]
            assert rows[label].cost[f"all_{unit}"] == pytest.approx(sum(sums) / len(sums), rel=1e-9)
        seconds = [record["measured"].get("spent_s") for record in found]
        if all(seconds):
            assert rows[label].cost["all_seconds"] == pytest.approx(sum(s["all"] for s in seconds) / len(seconds))


def test_size_is_in_the_table(tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]) -> None:
    for record in records[0].values():
        if "l0" in record["facts"]["metrics"]:
            record["facts"]["metrics"]["stored-bytes"] = {**record["facts"]["metrics"]["l0"], "value": 1_048_576.0}
    board = rebuilt(tmp_path, generator, records)
    row = rows_of(board)["topk k8"]
    assert (shown(row, "size:d_sae").value, shown(row, "size:stored-bytes").value) == (512, 1_048_576)
    assert {"size:d_sae", "size:stored-bytes"} <= {column.id for column in board.suites[0].sites[0].columns}
    assert " 1.05 MB |" in readme_markdown(board, has_chart=False)


def test_mixed_metric_versions_are_not_ranked(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    next(record for path, record in records[0].items() if "/topk/" in path)["facts"]["metric_versions"][
        "reconstruction"
    ] = "2"
    board = rebuilt(tmp_path, generator, records)
    site = board.suites[0].sites[0]
    assert site.mixed_versions == {"reconstruction": ("1", "2")}
    assert all(row.standing.best is None for row in site.rows)
    assert (
        "metric versions are mixed: reconstruction 1 and 2"
        in site.levels[0].metrics["variance-explained"].contenders["topk"].standing.reason
    )


def test_one_seed_has_no_interval_and_no_rank(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    cells = {path: record for path, record in records[0].items() if record["facts"]["init_seed"] == 0}
    board = rebuilt(tmp_path, generator, (cells, {}))
    row = rows_of(board)["topk k8"]
    assert shown(row, "variance-explained").half is None
    assert row.standing.best is None
    assert row.standing.reason == "one seed"


def test_other_evaluation_data_is_another_table(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    for path, record in records[0].items():
        if "/topk/" in path:
            record["facts"]["evaluation"]["datasets"][0]["content"] = "9" * 64
    sites = rebuilt(tmp_path, generator, records).suites[0].sites
    assert len(sites) == 3
    assert sites[0].title != sites[1].title
    assert {row.entry for row in sites[1].rows} == {"topk"}


def test_a_sweep_at_one_l0_makes_contenders_of_its_points(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    cells, _ = records
    for path, record in list(cells.items()):
        if "/topk/k8" in path:
            other = copy.deepcopy(record)
            other["facts"].update(entry="tilted", point="tilt-1")
            again = copy.deepcopy(record)
            again["facts"].update(entry="tilted", point="tilt-2")
            again["facts"]["config"]["tilt"] = 2.0
            for index, item in enumerate((other, again)):
                item["cell_id"] = item["score_id"] = generator.hexes(path, index)
                cells[path.replace("/topk/", f"/tilted/{index}-")] = item
    order = rebuilt(tmp_path, generator, (cells, {})).suites[0].sites[0].levels[0].order
    assert {"tilted tilt-1", "tilted tilt-2"} <= set(order)


def test_two_configs_of_one_name_are_told_apart(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    path, record = next((path, record) for path, record in cells.items() if "/topk/k8-s0" in path)
    other = copy.deepcopy(record)
    other["facts"]["train"]["lr"] = 0.5
    other["cell_id"] = other["score_id"] = "ab" * 32
    cells[path.replace(".json", "-b.json")] = other
    labels = [label for label in rows_of(rebuilt(tmp_path, generator, (cells, groups))) if label.startswith("topk k8")]
    assert len(labels) == 2
    assert all(label.startswith("topk k8 [") for label in labels)


def test_details_of_an_unknown_shape_are_a_damaged_record(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    next(iter(records[0].values()))["facts"]["details"]["density-histogram"] = {"edges": []}
    with pytest.raises(SuiteError, match="damaged record: cannot read its density"):
        rebuilt(tmp_path, generator, records)


def test_contexts_are_spread_over_densities_and_shown_once_an_entry(board: Board) -> None:
    rows = rows_of(board)
    assert [latent.latent for latent in rows["topk k16"].contexts] == [3, 41, 207, 300]
    assert rows["topk k8"].contexts == ()
    context = rows["topk k16"].contexts[0].contexts[0]
    assert len(context.tokens) == len(context.activations) <= 24
    assert max(context.activations) == context.peak


@pytest.mark.parametrize(
    ("load", "title"),
    [
        (None, "g/m"),
        ({"dtype": "bfloat16"}, "g/m (bfloat16)"),
        ({"device_map": "auto"}, "g/m"),
        (
            {"dtype": "float16", "quantisation": "4bit", "attention": "eager", "trust_remote_code": True},
            "g/m (float16, 4bit, eager attention, its own code)",
        ),
    ],
)
def test_a_title_says_how_a_model_was_loaded_where_that_is_not_the_default(load: Any, title: str) -> None:
    assert model_title({"id": "g/m", **({} if load is None else {"load": load})}) == title


def test_a_model_in_two_precisions_has_two_sites_with_two_titles(tmp_path: Path, generator: ModuleType) -> None:
    cells, groups = generator.make_records()
    more = {}
    for name, record in cells.items():
        if record["facts"]["model"] is not None:
            half = copy.deepcopy(record)
            half["facts"]["model"] |= {"digest": "b7" * 32, "load": {"dtype": "bfloat16"}}
            half["cell_id"], half["score_id"] = half["cell_id"][::-1], half["score_id"][::-1]
            more[name.replace(".json", "-half.json")] = half
    titles = [site.title for site in rebuilt(tmp_path, generator, (cells | more, groups)).suites[0].sites]
    assert {"docs-lm, layers.2", "docs-lm (bfloat16), layers.2"} <= set(titles)
