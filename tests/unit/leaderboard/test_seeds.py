from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.api.errors import SuiteError
from saebench.base.student import t_quantile
from saebench.leaderboard.pages.text import certificate_text, chance_text, total_text, within_chance
from saebench.leaderboard.read.columns import columns_of
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.read.records import CellRecord, GroupRecord
from saebench.leaderboard.tables.agreement.seeds import certificate, group_metrics, group_of, seed_agreement
from saebench.leaderboard.tables.agreement.values import Apart, Bin, Certificate, Chance, Recapture, SeedAgreement
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.row import Row

Records = dict[str, dict[str, Any]]
TOPK = "groups/quickstart/topk/k8.json"


def rows_of(folder: Path) -> dict[str, Row]:
    board = make_board(merged_records([folder]))
    return {row.label: row for suite in board.suites for site in suite.sites for row in site.rows}


@pytest.fixture
def group(agreeing: tuple[Records, Records]) -> GroupRecord:
    return GroupRecord(TOPK, agreeing[1][TOPK])


def agreement_of(group: GroupRecord) -> Any:
    """With all pieces: a test that reads one that is not there fails."""
    return seed_agreement(group, columns_of([], [group.record]))


def details(group: GroupRecord) -> dict[str, Any]:
    found: dict[str, Any] = group.record["facts"]["details"]
    return found


def test_every_score_stands_beside_chance_and_over_it(group: GroupRecord) -> None:
    found = agreement_of(group)
    level, metrics = found.scores["matched-cosine"], group.facts["metrics"]
    assert level.value == metrics["matched-cosine"]["value"]
    assert level.half == pytest.approx(t_quantile(2) * metrics["matched-cosine"]["stderr"])
    assert level.null == Chance(0.207, pytest.approx(0.205), pytest.approx(0.209), 10, 512, 512, 128)
    assert level.corrected.value == pytest.approx((level.value - 0.207) / (1 - 0.207))
    assert level.corrected.half == pytest.approx(level.half / (1 - 0.207))
    assert found.scores["matched-correlation"].null.draws == 3
    assert found.scores["block-agreement"].value is None
    assert (found.seeds, found.pairs, found.reason) == (3, 3, None)


def test_the_larger_chance_counts_and_words_say_where_a_score_does_not_exceed_it(group: GroupRecord) -> None:
    told = {"value": 0.95, "low": 0.94, "high": 0.96, "draws": 5, "sd": 0.01, "n": 512, "m": 512, "d": 128}
    details(group)["stability-data-null"] = {"matched-cosine": told, "mmcs": {**told, "value": 0.0}}
    group.facts["metrics"]["matched-cosine-corrected"].update(value=-0.5, stderr=0.01)
    found = agreement_of(group).scores
    level = found["matched-cosine"].null
    assert level == Chance(0.95, 0.94, 0.96, 5, 512, 512, 128, untrained=True, other=pytest.approx(0.207))
    assert "with 512 untrained samples of the training activations in 128 dimensions; random" in chance_text(level)
    assert not found["mmcs"].null.untrained
    assert within_chance("topk k8", "matched cosine", found["matched-cosine"]) == (
        f"topk k8: matched cosine {found['matched-cosine'].value:.3f} does not exceed chance: "
        "untrained samples of the training activations reach 0.950."
    )
    assert within_chance("topk k8", "MMCS", found["mmcs"]) is None
    # an interval that holds 0 is not over chance
    group.facts["metrics"]["mmcs-corrected"].update(value=0.01, stderr=0.1)
    assert "random directions reach" in str(within_chance("topk k8", "MMCS", agreement_of(group).scores["mmcs"]))


def test_blocks_have_their_own_chance(group: GroupRecord) -> None:
    group.record["facts"]["metrics"]["block-agreement"].update(value=0.6, reason=None)
    details(group)["block-agreement"] = {"null": {"value": 0.11, "low": 0.1, "high": 0.12, "draws": 10}}
    found = agreement_of(group).scores["block-agreement"]
    assert (found.value, found.null.value, found.corrected) == (0.6, 0.11, None)


def test_old_records_give_what_they_have(folder: Path) -> None:
    found = rows_of(folder)["topk k8"].stability
    assert set(found.scores) == {"sfr", "sfr-alive", "matched-cosine"}
    assert found.scores["matched-cosine"].null.value == 0.291
    assert found.scores["matched-cosine"].null.draws is None
    assert found.scores["sfr"].null is None
    assert all(score.corrected is None for score in found.scores.values())
    assert [found.matching, found.curve, found.reappearance, found.recapture, found.activation] == [None] * 5


def test_controls_have_no_agreement(folder: Path) -> None:
    board = make_board(merged_records([folder]))
    assert [row.stability for row in board.suites[0].sites[0].controls] == [None] * 4


def test_two_seeds_have_no_interval(agreeing: tuple[Records, Records]) -> None:
    group = GroupRecord("ssae", agreeing[1]["groups/quickstart/ssae/k8.json"])
    found = agreement_of(group)
    assert found.scores["sfr"].value is not None
    assert found.scores["sfr"].half is None
    assert found.curve.half is None
    details(group)["sfr-curve"]["stderr"]["sfr"] = [None] * 20
    assert agreement_of(group).curve.half == (None,) * 20


@pytest.mark.parametrize("vary", ["dataset+init_seed", "data_seed"])
def test_a_group_that_varies_more_is_no_row_of_seeds(agreeing: tuple[Records, Records], vary: str) -> None:
    cells, groups = agreeing
    members = [CellRecord(path, cells[path]) for path in sorted(cells) if "/topk/k8-s" in path]
    other = copy.deepcopy(groups[TOPK])
    other["facts"]["vary"] = vary
    assert group_of(members, [GroupRecord("other", other)]) is None
    found = group_of(members, [GroupRecord("other", other), GroupRecord(TOPK, groups[TOPK])])
    assert found is not None
    assert found.path == TOPK


def test_a_row_without_scores_says_why(group: GroupRecord) -> None:
    assert seed_agreement(None, ()) == SeedAgreement("no group record of exactly these scores", {})
    for metric in group.facts["metrics"].values():
        metric.update(value=None, stderr=None, reason="needs two or more SAEs")
    assert agreement_of(group) == SeedAgreement("needs two or more SAEs", {})


def test_an_extrapolated_total_has_its_own_interval(group: GroupRecord) -> None:
    metrics = group_metrics(group)
    assert metrics["idealised-dictionary-size"].stderr is not None
    assert metrics["idealised-dictionary-size"].half is None
    assert metrics["sfr"].half is not None


def test_certificates(group: GroupRecord) -> None:
    assert certificate(group) == Certificate(3, 3, 3.1e-16)
    assert certificate_text(certificate(group)) == (
        "exact",
        "all 3 matchings proven optimal; no better matching by more than 3e-16 of the total",
    )
    details(group)["stability-pairs"][2].update(gap=0.0213, proven=False)
    assert certificate_text(certificate(group)) == ("within 2.1 %", "2 of 3 matchings proven optimal")
    details(group)["stability-pairs"][1].update(gap=None, proven=False)
    assert certificate_text(certificate(group)) == (
        "not proven",
        "1 of 3 matchings proven optimal; no bound for the rest",
    )
    for pair in details(group)["stability-pairs"]:
        del pair["gap"], pair["proven"]
    assert certificate(group) is None
    assert certificate_text(None)[0] == "–"


def test_the_curve_has_a_band_and_chance(group: GroupRecord) -> None:
    curve = agreement_of(group).curve
    assert curve.thresholds == tuple(index / 20 for index in range(20))
    assert curve.half == pytest.approx([t_quantile(2) * 0.01] * 20)
    assert curve.sfr_null[0] > 0.99 > 0.01 > curve.sfr_null[-1]
    for key in ("sfr-null", "stderr"):
        del details(group)["sfr-curve"][key]
    old = agreement_of(group).curve
    assert (old.sfr, old.half, old.sfr_null) == (curve.sfr, None, None)


def test_a_curve_of_another_length_is_a_damaged_record(group: GroupRecord) -> None:
    details(group)["sfr-curve"]["sfr-null"].pop()
    with pytest.raises(SuiteError, match="damaged record: cannot read its threshold curve"):
        agreement_of(group)


def test_reappearance_keeps_bins_that_hold_latents(group: GroupRecord) -> None:
    by = details(group)["reappearance"]["by_density"]
    by.update(n=[0] * 12, mean=[None] * 12, stderr=[None] * 12)
    by["n"][3], by["mean"][3], by["stderr"][3] = 40, 0.25, 0.02
    by["n"][11], by["mean"][11] = 2, 0.75
    found = agreement_of(group).reappearance.density
    assert list(found.bins) == [
        Bin(-4.5, -4.0, 40, 0.25, pytest.approx(0.02 * t_quantile(2))),
        Bin(-0.5, 0.0, 2, 0.75, None),
    ]
    assert found.apart == {"dead": Apart(18, 0.01)}


def test_reappearance_without_shares_of_variance_says_why(group: GroupRecord) -> None:
    details(group)["reappearance"]["by_variance_share"] = {"reason": "decode is not linear in the codes"}
    found = agreement_of(group).reappearance
    assert found.variance is None
    assert found.reasons == {"variance": "decode is not linear in the codes"}


def test_recapture(group: GroupRecord) -> None:
    found = agreement_of(group).recapture
    told = details(group)["recapture"]
    assert (found.k, found.distinct) == ((1, 2, 3), tuple(told["distinct"]))
    assert found.coverage == pytest.approx(told["distinct"][-1] / told["estimate"])
    told["k"] = 3
    assert agreement_of(group).recapture.k == (1, 2, 3)
    told.update(estimate=None, low=None, high=None)
    found = agreement_of(group).recapture
    assert (found.estimate, found.coverage) == (None, None)
    told["k"] = [1, 2]
    with pytest.raises(SuiteError, match="cannot read its recapture"):
        agreement_of(group)


def total(estimate: float | None, low: float | None, high: float | None) -> Recapture:
    more: Any = dict.fromkeys(field.name for field in fields(Recapture))
    return Recapture(**more | {"estimate": estimate, "low": low, "high": high})


def test_texts() -> None:
    level = Chance(0.207, 0.205, 0.209, 10, 512, 512, 128)
    assert chance_text(level) == (
        "chance 0.2070 (95 % 0.2050 to 0.2090, 10 draws): 512 with 512 random directions in 128 dimensions"
    )
    assert chance_text(Chance(0.2)) == "chance 0.2000"
    assert total_text(total(1234.4, 1100.0, 1400.6)) == ("1,234", "1,100 to 1,401")
    assert total_text(total(12.0, None, None)) == ("12", "")
    assert total_text(total(None, None, None)) == ("–", "")


def test_the_main_table_shows_sfr_alive_over_chance_where_all_have_it(
    tmp_path: Path, generator: ModuleType, folder: Path, agreeing: tuple[Records, Records]
) -> None:
    def columns(folder: Path) -> set[str]:
        return {column.id for column in make_board(merged_records([folder])).suites[0].sites[0].columns}

    assert {"sfr", "sfr-alive"} <= columns(folder)
    assert "sfr-alive-corrected" not in columns(folder)
    new = columns(generator.write_folder(tmp_path / "new", *agreeing))
    assert {"sfr", "sfr-alive-corrected"} <= new
    assert "sfr-alive" not in new
    del agreeing[1][TOPK]["facts"]["metrics"]["sfr-alive-corrected"]
    mixed = columns(generator.write_folder(tmp_path / "mixed", *agreeing))
    assert {"sfr-alive", "sfr-alive-corrected"} <= mixed
