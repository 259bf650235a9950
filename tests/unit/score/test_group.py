from __future__ import annotations

import torch

from saebench.api import GroupMember, MetricResult, MetricValue
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
        "value": 1.0, "unit": "ratio", "direction": "lower", "n": 3, "stderr": 0.0, "reason": None, "on": None, "parts": [],
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
    assert outcome.status == "ok"
    assert {entry["reason"] for entry in outcome.metrics.values()} == {"RuntimeError: no pairs"}
