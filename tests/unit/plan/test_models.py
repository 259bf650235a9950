"""How a plan takes what it is told of a model: notes, tensors of no use, hookpoints where splicing is not exact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saebench.api import SuiteError

ENTRY = "{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}"
INSIST = "context: 128, load: {allow_unused: ['mtp.*']}}"


def known(fakes, **changes):
    facts = fakes.Facts()
    facts.models["docs-lm"] = replace(facts.models["docs-lm"], **changes)
    return facts


def test_what_was_noticed_of_a_model_is_a_warning_and_stays_with_every_cell(planner, fakes):
    plan = planner(ENTRY, facts=known(fakes, notes=("adapter_config.json is not applied.",)))
    assert plan.warnings[0] == "docs-lm: adapter_config.json is not applied."
    assert {cell.model.notes for cell in plan.cells} == {("adapter_config.json is not applied.",)}


def test_tensors_of_no_use_are_refused_until_the_suite_insists_which_changes_no_id(planner, fakes):
    plain = planner(ENTRY)
    facts = known(fakes, unused=("mtp.*",))
    with pytest.raises(SuiteError, match=r"s\.yaml:4 models\[0\]\.id: mtp\.\* is not used\."):
        planner(ENTRY, facts=facts)
    plan = planner(ENTRY, facts=facts, header=fakes.header.replace("context: 128}", INSIST))
    assert [cell.model.allow_unused for cell in plan.cells] == [("mtp.*",)]
    assert [cell.cell_id for cell in plan.cells] == [cell.cell_id for cell in plain.cells]


def test_a_place_where_splicing_is_not_exact_is_refused_with_its_line(planner, fakes):
    facts = known(fakes)
    facts.inexact = ("blocks.2",)
    with pytest.raises(SuiteError, match=r"s\.yaml:4 models\[0\]\.hookpoints\[0\]: splicing is not exact"):
        planner(ENTRY, facts=facts)
