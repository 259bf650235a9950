"""What a plan refuses, and the one line that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from saebench.api import Findings, PluginError, Problem, StreamSpec
from saebench.host import Clash

GOOD = "{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}"


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (GOOD.replace("[4, 8]", "[4, 512]"), "s.yaml:11 entries[0].config.k: got 512 but d_sae is 64. Use k <= d_sae."),
        (
            GOOD.replace("d_sae: 64", "d_sea: 64"),
            "s.yaml:11 entries[0].config.d_sea: unknown key. Did you mean 'd_sae'? Allowed: d_sae, k.",
        ),
        (
            GOOD.replace("{k:", "{kk:"),
            "s.yaml:11 entries[0].config.kk: unknown key. Did you mean 'k'? Allowed: d_sae, k.",
        ),
        (
            GOOD.replace("d_sae: 64", "d_sae: big"),
            "s.yaml:11 entries[0].config.d_sae: got 'big' but a whole number is expected.",
        ),
        (
            GOOD.replace("architecture: topk", "architecture: topkk"),
            "s.yaml:11 entries[0].architecture: no architecture named 'topkk'. Did you mean 'topk'?",
        ),
        (
            GOOD.replace("architecture: topk", "architecture: ssae"),
            "s.yaml:11 entries[0]: architecture 'ssae' starts from another entry. Add `init_from:`",
        ),
    ],
)
def test_an_entry_is_checked(refused, entry, line):
    found = refused(entry)
    assert found[0].startswith(line)


def test_a_sweep_points_at_its_own_line(refused, fakes):
    entry = (
        "  - name: other\n    architecture: topk\n    dataset: docs\n    config:\n      d_sae: 64\n"
        "    sweep:\n      k: [4, 512]\n"
    )
    assert refused(GOOD, base=entry + fakes.tail) == [
        "s.yaml:18 entries[1].config.k: got 512 but d_sae is 64. Use k <= d_sae."
    ]


@pytest.mark.parametrize(
    ("child", "line"),
    [
        (
            "architecture: fresh, init_from: topk",
            ".init_from: architecture 'fresh' always starts fresh. Leave `init_from` out.",
        ),
        ("architecture: topk, init_from: {entry: topk, keep: 3}", ".init_from.keep: unknown key. Allowed: entry, at."),
        (
            "architecture: topk, init_from: topk, config: {d_sae: 128}",
            ".config.d_sae: got 128 but its parent 'topk' has 64. Use the same d_sae",
        ),
        (
            "architecture: ssae, init_from: {entry: topk, at: {kk: 4}}",
            ".init_from.at.kk: 'topk' has no sweep over 'kk'. Did you mean 'k'? Allowed: k.",
        ),
        (
            "architecture: ssae, init_from: {entry: topk, at: {k: 5}}",
            ".init_from.at.k: got 5 but 'topk' has 4, 8. Use one of these.",
        ),
        ("architecture: ssae, init_from: topk, config: {d_sae: 64}", ".config.d_sae: unknown key. Allowed: tilt."),
    ],
)
def test_a_child_is_checked(refused, child, line):
    found = refused(f"{GOOD}\n{{name: child, dataset: docs, {child}}}")
    assert len(found) == 1
    assert found[0].startswith(f"s.yaml:12 entries[1]{line}")


def test_a_child_elsewhere_or_of_a_wrapper(refused):
    found = refused(f"{GOOD}\n{{name: child, dataset: truth, architecture: ssae, init_from: topk}}")
    assert found == [
        "s.yaml:12 entries[1].init_from: 'topk' has no cell at 'synthetic' (d_in 16). Use a dataset on the same site."
    ]
    found = refused(
        f"{GOOD}\n{{name: a, dataset: docs, architecture: ssae, init_from: topk}}\n"
        "{name: b, dataset: docs, architecture: ssae, init_from: a}"
    )
    assert found == [
        "s.yaml:13 entries[2].init_from: 'a' is a wrapper (ssae); start from a plain entry, such as its own parent."
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("layers.2", "layers.9", "s.yaml:4 models[0].hookpoints[0]: no hookpoint 'layers.9'. Did you mean 'layers.2'?"),
        (
            "layers.2",
            "layers.2, blocks.2",
            "s.yaml:4 models[0].hookpoints[1]: 'blocks.2' is the same place as 'layers.2' (blocks.2). Keep one.",
        ),
        (
            "context: 128",
            "context: 1024",
            "s.yaml:4 models[0].context: got 1024 but docs-lm reads at most 256 tokens. Use context <= 256.",
        ),
        ("id: docs-lm", "id: nowhere", "s.yaml:4 models[0].id: 'nowhere' is no model folder."),
        (
            "{plugin: docs}",
            "{plugin: dosc}",
            "s.yaml:6 datasets.docs.plugin: no dataset plugin named 'dosc'. Did you mean 'docs'?",
        ),
        (
            "{plugin: docs}",
            "{plugin: local, path: gone}",
            "s.yaml:6 datasets.docs.path: got 'gone' but there is no such file. Give one that exists.",
        ),
        ("{plugin: docs}", "{plugin: local, path: raises}", "s.yaml:6 datasets.docs: the corpus is empty."),
        (
            "{plugin: docs}",
            "{plugin: docs, versoin: x}",
            "s.yaml:6 datasets.docs.versoin: unknown key. Did you mean 'version'? Allowed: version.",
        ),
        ("tokens: 400", "tokens: -", "s.yaml:7 datasets.own.tokens: got '-' but a whole number is expected."),
        ("base: docs", "base: dosc", "s.yaml:8 datasets.near.base: no dataset named 'dosc'. Did you mean 'docs'?"),
        ("base: docs", "base: near", "s.yaml:8 datasets.near.base: goes in a circle: near <- near."),
        (
            "base: docs",
            "base: own",
            "s.yaml:8 datasets.near.base: 'own' is of kind generated; only text can be read from.",
        ),
    ],
)
def test_models_and_datasets_are_checked(refused, fakes, old, new, line):
    found = refused(GOOD, header=fakes.header.replace(old, new))
    assert len(found) == 1
    assert found[0].startswith(line)


@pytest.mark.parametrize(
    ("tail", "line"),
    [
        (
            "metrics: [fvu, f-v-u]",
            "s.yaml:14 metrics[1]: no metric named 'f-v-u'. Did you mean 'fvu'? Allowed: oddness, fvu, mse, l0, drift, "
            "sfr.",
        ),
        (
            "evaluation: {datasets: [docs, truth]}",
            "s.yaml:14 evaluation.datasets[1]: 'truth' is synthetic: its entries are scored on it of their own.",
        ),
    ],
)
def test_the_rest_is_checked(refused, tail, line):
    found = refused(GOOD, tail + "\n")
    assert len(found) == 1
    assert found[0].startswith(line)


def test_all_problems_come_at_once(refused, fakes):
    found = refused(
        GOOD.replace("64", "2"),
        "metrics: [x]\n",
        header=fakes.header.replace("layers.2", "layers.9, layers.2"),
        base="train: {batch: 64}\nbudget: {tokens: 10}\n",
    )
    assert [line.split()[0] for line in found] == ["s.yaml:4", "s.yaml:14", "s.yaml:11", "s.yaml:11"]


def test_a_bad_hookpoint_does_not_hide_a_bad_config(refused, fakes):
    found = refused(GOOD.replace("d_sae: 64", "d_sae: big"), header=fakes.header.replace("layers.2", "layers.9"))
    assert [line.split(":")[1].split()[0] for line in found] == ["4", "11"]


def test_equal_cells_under_two_names(refused):
    found = refused(f"{GOOD}\n{GOOD.replace('name: topk', 'name: twin')}")
    assert (
        found[0] == "s.yaml:12 topk k4 s0 and twin k4 s0: both are the same training run "
        "(equal architecture, config, data, seed). Keep one of them."
    )


def test_text_without_a_model(refused, fakes):
    header = fakes.header.replace("models:\n  - {id: docs-lm, hookpoints: [layers.2], context: 128}\n", "")
    assert "needs a language model, but the suite has none. Add `models:`." in refused(GOOD, header=header)[0]


def test_samples_of_an_encoder(refused, planner, fakes):
    facts = fakes.Facts({"docs-lm": fakes.Model(causal=False)})
    assert "is no causal language model" in refused(GOOD.replace("dataset: docs", "dataset: own"), facts=facts)[0]
    assert (
        "docs-lm is no causal language model: metrics of its loss are null there."
        in planner(GOOD, facts=facts).warnings
    )


def test_a_wrong_signature_is_found_before_anything_is_loaded(planner, fakes):
    def build(config, site, seed):  # no generator
        raise AssertionError("never called")

    catalog = fakes.catalog()
    registered = catalog.architectures["topk"]
    catalog.architectures["topk"] = replace(registered, spec=replace(registered.spec, build=build))
    with pytest.raises(PluginError, match=r"architecture 'topk' 1: build raised TypeError: .*generator"):
        planner(GOOD, catalog=catalog)


def test_a_build_that_reads_values_is_not_judged_by_a_plan(planner, fakes):
    def build(config, *, site, generator):
        float(torch.zeros(1))

    catalog = fakes.catalog()
    registered = catalog.architectures["topk"]
    catalog.architectures["topk"] = replace(registered, spec=replace(registered.spec, build=build))
    assert planner(GOOD, catalog=catalog).cells


def test_a_bug_of_a_plugin_names_it(planner, fakes):
    catalog = fakes.catalog()
    registered = catalog.architectures["topk"]
    catalog.architectures["topk"] = replace(registered, spec=replace(registered.spec, check=lambda config, site: 1 / 0))
    with pytest.raises(PluginError, match=r"topk of fake-dist 1\.2: check raised ZeroDivisionError"):
        planner(GOOD, catalog=catalog)


NO_MODEL = (
    "schema: 1\nname: s\ndatasets:\n  docs: {plugin: docs}\n  truth: {plugin: synthetic}\n  made: {plugin: vectors}\n"
)
ON_TRUTH = "{name: truth, architecture: topk, dataset: truth, config: {d_sae: 16, k: 2}}"
MADE = "{name: made, architecture: topk, dataset: made, config: {d_sae: 16, k: 2}}"


def with_vectors(fakes):
    """The catalog with a dataset of vectors that a language model makes."""
    catalog = fakes.catalog()
    registered = catalog.datasets["synthetic"]
    catalog.datasets["vectors"] = replace(
        registered, spec=replace(registered.spec, name="vectors", kind="activations", uses_model=True)
    )
    return catalog


def test_an_entry_without_the_language_model_it_needs_is_refused_and_the_others_are_planned(planner, fakes):
    child = "{name: child, architecture: topk, dataset: docs, init_from: topk, config: {d_sae: 64}}"
    plan = planner(f"{GOOD}\n{ON_TRUTH}\n{MADE}\n{child}", header=NO_MODEL, catalog=with_vectors(fakes))
    assert {cell.entry for cell in plan.cells} == {"truth"}
    assert [(refused.entry, refused.reason) for refused in plan.refused] == [
        (
            "topk",
            "s.yaml:8 entries[0].dataset: 'docs' is text and needs a language model, but the suite has none. "
            "Add `models:`.",
        ),
        (
            "made",
            "s.yaml:10 entries[2].dataset: 'made' (plugin vectors) needs a language model to make its vectors, "
            "but the suite has none. Add one under `models`.",
        ),
        ("child", "s.yaml:11 entries[3].init_from: it starts from 'topk', which is refused. Mend that first."),
    ]  # fmt: skip


def test_where_nothing_is_left_all_refusals_are_the_error(refused, fakes):
    lines = refused(f"{GOOD}\n{MADE}", header=NO_MODEL, catalog=with_vectors(fakes))
    assert [line.split(":")[1].split()[0] for line in lines] == ["8", "9"]


def test_problems_of_the_suite_stop_everything_and_refusals_are_named_with_them(refused, fakes):
    lines = refused(f"{GOOD}\n{ON_TRUTH.replace('k: 2', 'kk: 2')}", header=NO_MODEL, catalog=with_vectors(fakes))
    assert [line.split()[1] for line in lines] == [
        "entries[1].config.kk:",
        "entries[1].config.k:",
        "entries[0].dataset:",
    ]


def test_vectors_that_a_model_makes_are_made_by_the_suites_own(planner, fakes):
    header = fakes.header.replace("  truth: {plugin: synthetic}\n", "  made: {plugin: vectors}\n")
    plan = planner(f"{GOOD}\n{MADE}", header=header, catalog=with_vectors(fakes))
    (made,) = (cell for cell in plan.cells if cell.entry == "made")
    assert plan.refused == ()
    assert made.model is None
    assert (made.dataset.model.id, made.dataset.model.digest, made.dataset.model.context) == (
        "docs-lm",
        "model-digest",
        128,
    )
    assert all(cell.dataset.model is None for cell in plan.cells if cell.entry == "topk")

    # the model, and how much of it is read, decide what the vectors are; where else it is read does not
    facts = fakes.Facts({"docs-lm": fakes.Model("other weights")})
    for changed in (
        planner(f"{GOOD}\n{MADE}", header=header, catalog=with_vectors(fakes), facts=facts),
        planner(f"{GOOD}\n{MADE}", header=header.replace("context: 128", "context: 64"), catalog=with_vectors(fakes)),
    ):
        assert made.cell_id not in {cell.cell_id for cell in changed.cells}
    elsewhere = header.replace("layers.2", "layers.0")
    assert made.cell_id in {
        cell.cell_id for cell in planner(f"{GOOD}\n{MADE}", header=elsewhere, catalog=with_vectors(fakes)).cells
    }


def test_two_models_and_nothing_that_says_which_makes_the_vectors(planner, fakes):
    header = fakes.header.replace("  truth: {plugin: synthetic}\n", "  made: {plugin: vectors}\n").replace(
        "datasets:", "  - {id: other, hookpoints: [layers.2], context: 128}\ndatasets:"
    )
    plan = planner(f"{GOOD}\n{MADE}", header=header, catalog=with_vectors(fakes))
    assert {cell.entry for cell in plan.cells} == {"topk"}
    (refused,) = plan.refused
    assert "needs a language model to make its vectors, but the suite has 2, and nothing says which" in refused.reason


def test_samples_of_an_encoder_are_refused_there_alone(planner, fakes):
    facts = fakes.Facts({"docs-lm": fakes.Model(), "other": fakes.Model("other-digest", causal=False)})
    header = fakes.header.replace("datasets:", "  - {id: other, hookpoints: [layers.2], context: 128}\ndatasets:")
    own = GOOD.replace("name: topk", "name: own").replace("dataset: docs", "dataset: own")
    child = "{name: child, architecture: ssae, dataset: docs, init_from: own}"
    plan = planner(f"{GOOD}\n{own}\n{child}", header=header, facts=facts)
    assert {(cell.entry, cell.model.id) for cell in plan.cells} == {
        ("topk", "docs-lm"), ("topk", "other"), ("own", "docs-lm"), ("child", "docs-lm"), ("own-continued", "docs-lm"),
    }  # fmt: skip
    assert [refused.entry for refused in plan.refused] == ["own", "child"]
    assert plan.refused[0].reason.endswith("but other is no causal language model. Use a text dataset.")
    assert plan.refused[1].reason.endswith(
        "entries[2].init_from: it starts from 'own', which is refused. Mend that first."
    )


def test_an_empty_part_refuses_the_entries_that_need_it(planner, fakes):
    catalog = fakes.catalog()
    registered = catalog.datasets["synthetic"]
    hollow = replace(registered.spec, name="hollow", inspect=lambda options: Findings(empty={"held-out": "too few."}))
    catalog.datasets["hollow"] = replace(registered, spec=hollow)
    header = fakes.header + "  thin: {plugin: hollow}\n"
    thin = "{name: thin, architecture: topk, dataset: thin, config: {d_sae: 16, k: 2}}"
    child = "{name: child, architecture: ssae, dataset: thin, init_from: thin}"
    plan = planner(f"{GOOD}\n{thin}\n{child}", header=header, catalog=catalog)
    assert {cell.entry for cell in plan.cells} == {"topk"}
    assert [(refused.entry, refused.reason) for refused in plan.refused] == [
        ("thin", "s.yaml:10 datasets.thin: too few."),
        ("child", "s.yaml:10 datasets.thin: too few."),
    ]


def test_a_file_that_is_not_there_refuses_the_entries_that_need_it(planner, fakes):
    gone = Problem("path", "gone.npy: no such file.", data=True)
    catalog = fakes.catalog()
    for name, kind in (("vectors-file", "synthetic"), ("text-file", "docs")):
        registered = catalog.datasets[kind]
        catalog.datasets[name] = replace(
            registered, spec=replace(registered.spec, name=name, check=lambda options: [gone])
        )
    header = (
        fakes.header
        + "  mine: {plugin: vectors-file}\n  lost: {plugin: text-file}\n  part: {plugin: subdomain, base: lost}\n"
    )
    mine = "{name: mine, architecture: topk, dataset: mine, config: {d_sae: 16, k: 2}}"
    lost, part = (
        GOOD.replace("name: topk", f"name: {x}").replace("dataset: docs", f"dataset: {x}") for x in ("lost", "part")
    )
    child = "{name: child, architecture: ssae, dataset: docs, init_from: lost}"
    plan = planner(f"{GOOD}\n{mine}\n{lost}\n{part}\n{child}", header=header, catalog=catalog)
    assert {cell.entry for cell in plan.cells} == {"topk"}
    assert [(refused.entry, refused.reason) for refused in plan.refused] == [
        ("mine", "s.yaml:10 datasets.mine.path: gone.npy: no such file."),
        ("lost", "s.yaml:11 datasets.lost.path: gone.npy: no such file."),
        ("part", "s.yaml:11 datasets.lost.path: gone.npy: no such file."),
        ("child", "s.yaml:18 entries[4].init_from: it starts from 'lost', which is refused. Mend that first."),
    ]
    gone_line = "path: gone.npy: no such file. No entry reads it."
    assert [line for line in plan.warnings if "No entry reads it" in line] == []
    alone = planner(GOOD, header=header, catalog=catalog)
    assert [line for line in alone.warnings if "No entry" in line] == [
        f"s.yaml:10 datasets.mine.{gone_line}",
        f"s.yaml:11 datasets.lost.{gone_line}",
    ]
    part_alone = planner(f"{GOOD}\n{part}", header=header, catalog=catalog)  # what it is made of is read
    assert [line for line in part_alone.warnings if "No entry" in line] == [f"s.yaml:10 datasets.mine.{gone_line}"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("d_sae: 64", "d_sae: 1_000_000_000_000"), ("k: [4, 8]}}", "k: [4]}, train: {batch: 1_000_000_000_000}}")],
)
def test_memory_that_no_machine_has_is_refused(refused, fakes, old, new):
    header = fakes.header.replace("tokens: 400", "tokens: 4_000_000_000_000_000")
    tail = fakes.tail.replace("tokens: 100_000", "tokens: 4_000_000_000_000_000")
    (line,) = refused(GOOD.replace(old, new), header=header, base=tail)
    assert "entries[0]: training needs about " in line
    assert line.endswith(" TB of memory, more than any machine has. Use a smaller d_sae or batch.")


def test_a_name_that_two_plugins_have_fails_only_suites_that_name_it(planner, fakes):
    catalog = fakes.catalog()
    mine = replace(catalog.metrics["odd"], spec=replace(catalog.metrics["odd"].spec, name="mine"))
    catalog.clashes.append(Clash("metric", ("oddness",), (catalog.metrics.pop("odd"), mine)))
    assert planner(GOOD, catalog=catalog).cells
    for chosen in ("extended", "[oddness]"):
        with pytest.raises(PluginError, match="metric 'oddness' is registered by"):
            planner(GOOD, f"metrics: {chosen}", catalog=catalog)
    catalog.clashes[0] = replace(catalog.clashes[0], specs=(replace(mine, spec=replace(mine.spec, core=True)), mine))
    with pytest.raises(PluginError, match="metric 'oddness' is registered by"):
        planner(GOOD, catalog=catalog)
    catalog = fakes.catalog()
    catalog.clashes.append(Clash("architecture", ("topk",), (catalog.architectures.pop("topk"),) * 2))
    with pytest.raises(PluginError, match="architecture 'topk' is registered by"):
        planner(GOOD, catalog=catalog)


def test_a_metric_that_reads_an_unknown_stream_is_refused_where_it_is_chosen(planner, refused, fakes):
    catalog = fakes.catalog()
    odd = catalog.metrics["odd"]
    catalog.metrics["odd"] = replace(odd, spec=replace(odd.spec, streams=("self-sample",)))
    assert planner(GOOD, catalog=catalog).cells
    (line,) = refused(GOOD, "metrics: [oddness]", catalog=catalog)
    assert line.startswith(
        "metric 'odd' of fake-dist reads a stream 'self-sample'. Did you mean 'self-sampled'? Allowed: eval,"
    )
    own = replace(odd.spec, streams=("self-sample",), adds=(StreamSpec("self-sample", "none:none"),))
    catalog.metrics["odd"] = replace(odd, spec=own)
    plain, added = planner(GOOD, "metrics: [fvu]"), planner(GOOD, "metrics: [fvu, oddness]", catalog=catalog)
    assert added.estimate.store_bytes > plain.estimate.store_bytes
    assert plain.cells[0].cell_id == added.cells[0].cell_id


def test_no_entry_is_a_control(planner, refused):
    entry = GOOD.replace("name: topk", "name: free").replace("architecture: topk", "architecture: control-pca")
    line = "entries[0].architecture: architecture 'control-pca' has the tag 'control', which no entry may have."
    assert any(line in found for found in refused(entry.replace("[4, 8]", "[4]")))
    plan = planner(f"{entry}\n{GOOD}")
    assert [one.entry for one in plan.refused] == ["free"]
    assert {cell.entry for cell in plan.cells if not cell.control} == {"topk"}
