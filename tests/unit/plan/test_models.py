"""How a plan takes what it is told of a model: notes, tensors of no use, hookpoints where splicing is not exact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saebench.api import SuiteError
from saebench.cells.load import LoadSettings

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


def loading(fakes, settings):
    return fakes.header.replace("context: 128}", f"context: 128, {settings}}}")


def test_how_a_model_is_loaded_goes_from_the_suite_to_every_cell(planner, fakes):
    settings = (
        "dtype: bfloat16, attention: eager, device_map: {'': 0, lm_head: cpu}, "
        "load: {quantisation: 8bit, trust_remote_code: true}"
    )
    plan = planner(ENTRY, header=loading(fakes, settings))
    expected = LoadSettings("bfloat16", "eager", "8bit", True, (("", 0), ("lm_head", "cpu")))
    assert {cell.model.load for cell in plan.cells} == {expected}
    assert {cohort.model.load for cohort in plan.cohorts} == {expected}
    assert {cell.model.load for cell in planner(ENTRY).cells} == {LoadSettings()}


def test_a_model_that_this_machine_cannot_load_is_planned_and_marked(planner, fakes):
    assert {cell.model.is_here for cell in planner(ENTRY).cells} == {True}
    for changes in ({"lacks": ("weights",)}, {"not_usable": "it needs a GPU."}):
        assert {cell.model.is_here for cell in planner(ENTRY, facts=known(fakes, **changes)).cells} == {False}


def test_a_model_in_half_precision_takes_half_the_memory(planner, fakes):
    facts = known(fakes, n_parameters=10**9)
    whole = planner(ENTRY, facts=facts).estimate
    half = planner(ENTRY, facts=facts, header=loading(fakes, "dtype: float16")).estimate
    # and so does the cache of what it samples, which is small beside
    assert whole.device_memory_bytes - half.device_memory_bytes == pytest.approx(2 * 10**9, rel=0.005)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("dtype: bf16", r"models\[0\]\.dtype: .*'bf16'.*bfloat16"),
        ("dtype: fp16", r"models\[0\]\.dtype: .*'fp16'.*float16"),
        ("dtype: null", r"models\[0\]\.dtype: "),
        ("device_map: balanced", r"device_map: got 'balanced' but null, auto or a mapping of modules to devices"),
        ("device_map: {}", r"device_map: got \{\} but null, auto"),
        ("device_map: {lm_head: -1}", r"device_map: got .* but null, auto"),
        ("device_map: {lm_head: true}", r"device_map: got .* but null, auto"),
        ("attention: ''", r"models\[0\]\.attention: "),
        ("attention: 3", r"models\[0\]\.attention: "),
        ("load: {quantisation: 3bit}", r"load\.quantisation: .*'3bit'.*8bit"),
        ("load: {quantization: 8bit}", r"quantization.*quantisation"),
        ("load: {trust_remote_code: yes please}", r"load\.trust_remote_code: "),
        ("load: {dtype: bfloat16}", r"load.*dtype"),
    ],
)
def test_wrong_settings_are_told_with_their_place(settings, message, planner, fakes):
    with pytest.raises(SuiteError, match=r"s\.yaml:4 .*" + message) as caught:
        planner(ENTRY, header=loading(fakes, settings))
    assert str(caught.value).count("\n") == 0
