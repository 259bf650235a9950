from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest
import torch

from saebench.api import GroupMember, MachineError, MetricResult, MetricValue
from saebench.score import score_group


def spec_of(kit, measure, *ids):
    class Metric:
        def measure(self, members):
            return measure(members)

    return kit.GroupMetricSpec("stability", "3", tuple(kit.info(id) for id in ids or ("same",)), Metric)


def members(kit, n):
    return [GroupMember(f"s{seed}", kit.Identity(), dead=torch.zeros(kit.d, dtype=torch.bool)) for seed in range(n)]


def same(kit):
    def measure(found):
        agree = float(torch.equal(found[0].sae.W_dec, found[1].sae.W_dec))
        return MetricResult(
            {"same": MetricValue.of(kit.info("same"), agree, len(found), stderr=0.0)},
            {"labels": [member.label for member in found]},
        )

    return measure


def test_members_are_measured_together(kit):
    outcome = score_group(kit.group(spec_of(kit, same(kit))), members(kit, 3), kit.catalog)
    assert outcome.status == "ok"
    assert outcome.metrics["same"] == {
        "value": 1.0, "unit": "ratio", "direction": "lower", "n": 3, "stderr": 0.0, "reason": None, "on": None,
        "parts": [],
    }  # fmt: skip
    assert outcome.details == {"labels": ["s0", "s1", "s2"]}
    assert outcome.metric_versions == {"stability": "3"}


def test_under_two_members_is_null_and_names_the_others(kit):
    outcome = score_group(
        kit.group(spec_of(kit, same(kit))), members(kit, 1), kit.catalog, missing=["s1 (diverged)", "s2 (failed)"]
    )
    assert outcome.status == "skipped"
    entry = outcome.metrics["same"]
    assert entry["value"] is None
    assert (
        entry["reason"]
        == "needs two or more SAEs that differ in init_seed, there is 1 (s0); without s1 (diverged), s2 (failed)"
    )


def test_a_group_metric_that_raises_is_null(kit):
    def measure(found):
        raise RuntimeError("no pairs")

    outcome = score_group(kit.group(spec_of(kit, measure, "same", "other")), members(kit, 2), kit.catalog)
    assert outcome.status == "failed"
    assert outcome.error == {"type": "PluginError", "message": "metric 'stability': RuntimeError: no pairs"}
    assert {entry["reason"] for entry in outcome.metrics.values()} == {"RuntimeError: no pairs"}


def answers(kit, value):
    """A group metric that answers so."""
    return lambda found: MetricResult({"same": value}, {})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda found: 3, "must return saebench.api.MetricResult, got int"),
        (lambda found: MetricResult({}), "returned nothing for it"),
        (lambda found: MetricResult({"same": 0.5}), "returned float for it"),
        (lambda found: MetricResult({"same": MetricValue(float("nan"), "ratio", "lower", 1)}), "must be finite"),
        (lambda found: MetricResult({}, details=[1]), "ValueError|TypeError"),
        (lambda found: sys.exit(3), "SystemExit: 3"),
    ],
)
def test_a_group_metric_that_breaks_its_contract_has_failed_and_the_others_keep_their_values(kit, answer, reason):
    broken = replace(spec_of(kit, answer), name="broken")
    sound = replace(spec_of(kit, same(kit), "sound"), name="sound")

    def sound_measure(found):
        return MetricResult({"sound": MetricValue.of(kit.info("sound"), 1.0, 2)})

    sound = replace(sound, make=spec_of(kit, sound_measure).make)
    if reason.startswith("ValueError"):
        broken = replace(broken, provides=())
    outcome = score_group(kit.group(broken, sound), members(kit, 2), kit.catalog)
    assert outcome.status == "failed"
    assert re.search(reason, outcome.error["message"])
    assert outcome.error["message"].startswith("metric 'broken': ")
    assert outcome.metrics["sound"]["value"] == 1.0


def test_a_null_with_a_reason_of_its_own_is_no_failure(kit):
    measure = answers(kit, MetricValue.of(kit.info("same"), float("nan"), 2))
    outcome = score_group(kit.group(spec_of(kit, measure)), members(kit, 2), kit.catalog)
    assert (outcome.status, outcome.error) == ("ok", None)
    assert outcome.metrics["same"]["reason"] == "the computation gave nan"


def test_numbers_of_other_libraries_become_plain_ones(kit):
    value = MetricValue(torch.tensor(0.5), "ratio", "lower", torch.tensor(2), torch.tensor(0.25))
    outcome = score_group(kit.group(spec_of(kit, answers(kit, value))), members(kit, 2), kit.catalog)
    entry = outcome.metrics["same"]
    assert [type(entry[name]) for name in ("value", "n", "stderr")] == [float, int, float]


def test_members_that_cannot_be_had_fail_the_group(kit):
    outcome = score_group(kit.group(spec_of(kit, same(kit))), [], kit.catalog, failure="RuntimeError: no weights")
    assert outcome.status == "failed"
    assert outcome.error["message"] == "its members: RuntimeError: no weights"
    assert outcome.metrics["same"]["reason"] == "RuntimeError: no weights"


def test_arrays_of_members_are_kept_by_name(kit):
    def measure(found):
        arrays = {f"row/{member.label}": torch.full((kit.d,), float(i)) for i, member in enumerate(found)}
        return MetricResult({"same": MetricValue.of(kit.info("same"), 1.0, 2)}, arrays=arrays)

    outcome = score_group(kit.group(spec_of(kit, measure)), members(kit, 2), kit.catalog)
    assert sorted(outcome.arrays) == ["row/s0", "row/s1"]
    assert outcome.arrays["row/s1"].tolist() == [1.0] * kit.d


def test_an_array_that_is_no_tensor_and_details_that_are_no_json_hurt_nobody_else(kit):
    def measure(found):
        value = {"same": MetricValue.of(kit.info("same"), 1.0, 2)}
        return MetricResult(value, {"good": 1, "bad": float("nan")}, {"list": [1, 2]} if len(found) == 2 else {})

    strange = score_group(kit.group(spec_of(kit, measure)), members(kit, 2), kit.catalog)
    assert (
        strange.metrics["same"]["reason"]
        == "PluginError: metric 'stability' gave array 'list' as list, not as a tensor"
    )
    assert strange.arrays == {}
    odd = score_group(kit.group(spec_of(kit, measure)), members(kit, 3), kit.catalog)
    assert odd.metrics["same"]["value"] == 1.0
    assert odd.details["good"] == 1
    assert odd.details["bad"]["error"].startswith("not written: ValueError")


def test_what_varies_is_named_where_members_are_missing(kit):
    group = replace(kit.group(spec_of(kit, same(kit))), vary=("dataset", "init_seed"))
    outcome = score_group(group, [], kit.catalog, missing=["docs s0 (failed)"])
    assert outcome.metrics["same"]["reason"] == (
        "needs two or more SAEs that differ in dataset and init_seed, there are 0 (none); without docs s0 (failed)"
    )


def test_a_machine_that_refuses_stops_the_run(kit):
    def measure(found):
        raise MachineError("/here: no space is left on the disk.")

    with pytest.raises(MachineError, match="no space"):
        score_group(kit.group(spec_of(kit, measure)), members(kit, 2), kit.catalog)
