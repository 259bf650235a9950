"""The page of 80 columns, the JSON form, the estimate, the starter suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saebench.config import load_suite
from saebench.plan import make_plan, starter_suite
from saebench.plan.print import print_plan

ENTRIES = """{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}
{name: contender-with-a-long-name, architecture: ssae, dataset: near, init_from: topk, sweep: {tilt: [0.25, 0.5, 1, 2]}}
{name: truth, architecture: topk, dataset: truth, config: {d_sae: 64, k: 3}}"""


def test_the_page_fits_in_80_columns_and_names_everything(planner):
    plan = planner(
        ENTRIES,
        "controls: true\nseeds: {init: [0, 1, 2]}\n",
        base="train: {batch: 64}\nbudget: {tokens: 300_000_000, pool: true, memory_gb: 1e-7}\n",
    )
    page = print_plan(plan)
    assert max(map(len, page.splitlines())) <= 80
    for word in (
        "topk",
        "ssae over topk",
        "control-identity",
        "k4, k8",
        "100,000,000",
        "one pool of 300,000,000 tokens shared by 3",
        "assuming 1e+11 FLOP/s",
        "snapshots",
        "activations",
        "of it on the device",
        "Please note",
    ):
        assert " ".join(word.split()) in " ".join(page.split()), word


def test_a_plan_is_json(planner):
    plan = planner(ENTRIES, "controls: true\n")
    data = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert len(data["cells"]) == len(plan.cells)
    assert data["schema_version"] == 1


def test_planning_twice_gives_the_same_plan(planner):
    assert planner(ENTRIES, "controls: true\n") == planner(ENTRIES, "controls: true\n")


def test_the_starter_suite_loads_and_plans(tmp_path: Path, fakes):
    text = tmp_path / 'my "corpus" é.txt'
    text.write_text("hello")
    path = tmp_path / "mine.yaml"
    path.write_text(starter_suite("docs-lm", str(text), hookpoint="layers.2", d_in=200, context=64))
    config = load_suite(path).config
    assert config.name == "mine"
    assert config.datasets["text"].options["path"] == str(text)
    assert config.models[0].context == 64
    assert config.entries[0].config == {"d_sae": 1024}
    assert config.entries[0].sweep == {"k": (16, 32)}
    catalog = fakes.catalog()
    catalog.architectures["jumprelu"] = catalog.architectures["loose"]
    config_only_topk = path.read_text().splitlines()
    path.write_text("\n".join(line for line in config_only_topk if "jumprelu" not in line and "expander" not in line))
    plan = make_plan(load_suite(path), catalog, facts=fakes.Facts())
    assert [group.vary for group in plan.groups] == [("init_seed",)] * 4 + [("dataset",)] * 2 * 3


def test_the_starter_suite_of_an_encoder_asks_for_no_samples():
    text = starter_suite("m", "t.txt", hookpoint="layers.1", d_in=64, causal=False)
    assert "faithful" not in text
    assert "jumprelu" in text


@pytest.mark.parametrize(
    ("d_in", "d_sae", "k"), [(16, 512, 8), (64, 512, 8), (192, 1024, 16), (768, 4096, 32), (8192, 16384, 32)]
)
def test_sizes_of_the_starter_suite(d_in, d_sae, k):
    text = starter_suite("m", "t.txt", hookpoint="layers.1", d_in=d_in)
    assert f"d_sae: {d_sae}" in text
    assert f"k: [{k}, {2 * k}]" in text
