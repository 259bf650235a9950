"""What a plan refuses, and the one line that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saebench.api import PluginError

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
    entry = "  - name: other\n    architecture: topk\n    dataset: docs\n    config:\n      d_sae: 64\n    sweep:\n      k: [4, 512]\n"
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
        (
            "architecture: topk, init_from: {entry: topk, keep: 3}",
            ".init_from.keep: `keep` is not available in this version",
        ),
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
            ".init_from.at.k: got 5 but 'topk' stands at 4, 8. Use one of these.",
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
        f"{GOOD}\n{{name: a, dataset: docs, architecture: ssae, init_from: topk}}\n{{name: b, dataset: docs, architecture: ssae, init_from: a}}"
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
            "s.yaml:14 metrics[1]: no metric named 'f-v-u'. Did you mean 'fvu'? Allowed: oddness, fvu, mse, l0, drift, sfr.",
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
        found[0]
        == "s.yaml:12 topk k4 s0 and twin k4 s0: both are the same training run (equal architecture, config, data, seed). Keep one of them."
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


def test_a_bug_of_a_plugin_names_it(planner, fakes):
    catalog = fakes.catalog()
    offer = catalog.architectures["topk"]
    catalog.architectures["topk"] = replace(offer, spec=replace(offer.spec, check=lambda config, site: 1 / 0))
    with pytest.raises(PluginError, match=r"topk of fake-dist 1\.2: check raised ZeroDivisionError"):
        planner(GOOD, catalog=catalog)
