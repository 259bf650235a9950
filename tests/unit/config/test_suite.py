"""Suite files: defaults, every problem with file and line, `extends`, built-in names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saebench.api import SuiteError
from saebench.config import builtin_suites, json_schema, load_suite

MINIMAL = """\
schema: 1
name: mini
models:
  - {id: docs-lm, hookpoints: [layers.2]}
datasets:
  docs: {plugin: docs}
entries:
  - {name: topk, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}
budget: {primary: tokens, tokens: 150_000}
"""


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(folder: Path, text: str, monkeypatch) -> list[str]:
    monkeypatch.chdir(folder)
    write(folder, text)
    with pytest.raises(SuiteError) as caught:
        load_suite("s.yaml")
    return str(caught.value).splitlines()


def test_defaults_of_the_interface(tmp_path):
    config = load_suite(write(tmp_path, MINIMAL)).config
    assert config.metrics == "core"
    assert config.controls is False
    assert config.seeds.init == config.seeds.data == config.seeds.evaluation == (0,)
    assert config.evaluation.datasets is None
    assert config.train.lr == "auto"
    assert config.budget.tokens == 150_000
    assert config.budget.counts == "train"
    assert config.entries[0].sweep == {"k": (4, 8)}
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


def test_name_falls_back_to_the_file(tmp_path):
    assert load_suite(write(tmp_path, MINIMAL.replace("name: mini\n", ""), "my-run.yaml")).config.name == "my-run"


def test_digest_is_of_the_content_not_the_layout(tmp_path):
    one = load_suite(write(tmp_path, MINIMAL, "a.yaml"))
    two = load_suite(write(tmp_path, "# a comment\n" + MINIMAL.replace("150_000", "1.5e5"), "b.yaml"))
    three = load_suite(write(tmp_path, MINIMAL.replace("150_000", "150_001"), "c.yaml"))
    assert one.digest == two.digest != three.digest


def test_positions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, MINIMAL)
    suite = load_suite("s.yaml")
    assert suite.where("entries", 0, "sweep", "k") == "s.yaml:8"
    assert suite.where("entries", 0, "train", "lr") == "s.yaml:8"
    assert suite.where("controls") == "s.yaml:1"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "name: mini",
            "nmae: mini",
            "s.yaml:2 nmae: unknown key. Did you mean 'name'? Allowed: schema, name, extends, models",
        ),
        (
            "dataset: docs,",
            "datset: docs, dataset: docs,",
            "s.yaml:8 entries[0].datset: unknown key. Did you mean 'dataset'? Allowed: name, arch",
        ),
        (
            "{primary: tokens,",
            "{primary: tokes,",
            "s.yaml:9 budget.primary: got 'tokes' but one of tokens, flops, device_seconds is expected. Did you mean "
            "'tokens'?",
        ),
        (
            "tokens: 150_000",
            "tokens: lots",
            "s.yaml:9 budget.tokens: got 'lots' but a whole number of at least 1 is expected.",
        ),
        ("tokens: 150_000", "tokens: 0", "s.yaml:9 budget.tokens: got 0 but a whole number of at least 1 is expected."),
        (
            "hookpoints: [layers.2]",
            "hookpoints: layers.2",
            "s.yaml:4 models[0].hookpoints: got 'layers.2' but a list is expected. Write [layers.2].",
        ),
        (
            "hookpoints: [layers.2]",
            "hookpoints: []",
            "s.yaml:4 models[0].hookpoints: is empty; at least one is expected.",
        ),
        ("schema: 1", "schema: 2", "s.yaml:1 schema: got 2 but this saebench reads schema 1. Write `schema: 1`."),
        (
            "name: topk",
            "name: to/pk",
            "s.yaml:8 entries[0].name: got 'to/pk' but letters, digits, '.', '_' and '-' are allowed, a letter or "
            "digit first, no '.' last.",
        ),
        ("{plugin: docs}", "{}", "s.yaml:6 datasets.docs.plugin: is missing. Add `plugin:`"),
        ("{plugin: docs}", "docs", "s.yaml:6 datasets.docs: got 'docs' but a mapping (key: value) is expected."),
        (
            "config: {d_sae: 64}",
            "config: 64",
            "s.yaml:8 entries[0].config: got 64 but a mapping (key: value) is expected.",
        ),
        ("k: [4, 8]", "k: 4", "s.yaml:8 entries[0].sweep.k: got 4 but a list is expected. Write [4]."),
        ("k: [4, 8]", "k: [4, 4]", "s.yaml:8 entries[0].sweep.k[1]: value 4 is given twice. Keep one."),
        (
            "{d_sae: 64}",
            "{d_sae: 64, k: 4}",
            "s.yaml:8 entries[0].sweep.k: is in config too. Keep it in one of the two.",
        ),
        (
            "dataset: docs",
            "dataset: dosc",
            "s.yaml:8 entries[0].dataset: no dataset named 'dosc'. Did you mean 'docs'? Allowed: docs.",
        ),
        (
            "name: topk",
            "name: control-topk",
            "s.yaml:8 entries[0].name: got 'control-topk'; names that begin with 'control-' belong to the controls.",
        ),
        ("tokens: 150_000", "flops: 1e12", "s.yaml:9 budget: primary is tokens but `tokens:` is not given."),
        ("budget:", "controls: no\nbudget:", "s.yaml:9 controls: got 'no' but true or false is expected."),
        ("budget:", "seeds: {init: [1, 1]}\nbudget:", "s.yaml:9 seeds.init[1]: seed 1 is given twice. Keep one."),
        ("budget:", "seeds: {init: 3}\nbudget:", "s.yaml:9 seeds.init: got 3 but a list is expected. Write [3]."),
        (
            "budget:",
            "seeds: {init: [-1]}\nbudget:",
            "s.yaml:9 seeds.init[0]: got -1 but a whole number of at least 0 is expected.",
        ),
        (
            "budget:",
            "train: {lr: fast}\nbudget:",
            "s.yaml:9 train.lr: got 'fast' but a number over 0 or auto is expected.",
        ),
        ("budget:", "train: {betas: [0.9]}\nbudget:", "s.yaml:9 train.betas: got [0.9] but a list of 2 numbers"),
        (
            "budget:",
            "train: {warmup: 0.9, decay: 0.2}\nbudget:",
            "s.yaml:9 train: warmup 0.9 and decay 0.2 are fractions of the allotment and give more than 1.",
        ),
        (
            "budget:",
            "evaluation: {datasets: [doc]}\nbudget:",
            "s.yaml:9 evaluation.datasets[0]: no dataset named 'doc'. Did you mean 'docs'?",
        ),
        (
            "budget:",
            "metrics: all\nbudget:",
            "s.yaml:9 metrics: got 'all' but core, extended or a list of metric ids is expected.",
        ),
    ],
)
def test_one_mistake_gives_one_line(tmp_path, monkeypatch, old, new, line):
    found = problems(tmp_path, MINIMAL.replace(old, new, 1), monkeypatch)
    assert len(found) == 1, found
    assert found[0].startswith(line)


def test_missing_blocks_say_what_to_add(tmp_path, monkeypatch):
    assert problems(tmp_path, "schema: 1\nname: x\n", monkeypatch) == [
        "s.yaml:1 datasets: is missing. Add `datasets:` such as `docs: {plugin: docs}`.",
        "s.yaml:1 entries: is missing. Add `entries:` with at least one contender: "
        "`- {name: topk, architecture: topk, dataset: docs, config: {d_sae: 512, k: 16}}`.",
        "s.yaml:1 budget: is missing. Add `budget: {primary: tokens, tokens: 150_000}`.",
    ]


def test_all_problems_are_collected(tmp_path, monkeypatch):
    text = (
        MINIMAL.replace("name: mini", "name: 7").replace("d_sae: 64}", "d_sae: 64}, more: 1").replace("150_000", "many")
    )
    assert [line.split(": ")[0] for line in problems(tmp_path, text, monkeypatch)] == [
        "s.yaml:2 name",
        "s.yaml:8 entries[0].more",
        "s.yaml:9 budget.tokens",
    ]


def test_parents_must_be_known_and_not_go_in_circles(tmp_path, monkeypatch):
    entries = """  - {name: a, architecture: topk, dataset: docs, init_from: b}
  - {name: b, architecture: topk, dataset: docs, init_from: {entry: a}}
  - {name: c, architecture: topk, dataset: docs, init_from: c}
  - {name: d, architecture: topk, dataset: docs, init_from: {entry: tpok}}
"""
    found = problems(tmp_path, MINIMAL.replace("budget", entries + "budget", 1), monkeypatch)
    assert [line.split(" entries")[1] for line in found] == [
        "[1].init_from: goes in a circle: a <- b <- a. Let one of them start fresh.",
        "[2].init_from: goes in a circle: b <- a <- b. Let one of them start fresh.",
        "[3].init_from: an entry cannot start from itself.",
        "[4].init_from: no entry named 'tpok'. Did you mean 'topk'? Allowed: topk, a, b, c.",
    ]


def test_init_from_takes_a_name_or_a_mapping(tmp_path):
    entry = "  - {name: child, architecture: ssae, dataset: docs, init_from: topk}\n"
    config = load_suite(write(tmp_path, MINIMAL.replace("budget", entry + "budget", 1))).config
    assert config.entries[1].init_from.entry == "topk"
    config = load_suite(
        write(tmp_path, MINIMAL.replace("budget", entry.replace("topk", "{entry: topk, at: {k: 4}}") + "budget", 1))
    ).config
    assert config.entries[1].init_from.at == {"k": 4}


def test_extends_merges_mappings_and_keeps_origins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", MINIMAL + "train: {batch: 64, lr: 1e-3}\n", "base.yaml")
    write(
        tmp_path,
        "extends: base/base.yaml\nname: child\ntrain: {lr: 2e-3}\nmodels:\n  - {id: other, hookpoints: "
        "[layers.0]}\ndatasets:\n  docs: {plugin: local, path: x}\n  more: {plugin: docs}\n",
    )
    suite = load_suite("s.yaml")
    config = suite.config
    assert config.name == "child"
    assert (config.train.batch, config.train.lr) == (64, 2e-3)
    assert [model.id for model in config.models] == ["other"]
    assert dict(config.datasets["docs"].options) == {"path": "x"}
    assert list(config.datasets) == ["docs", "more"]
    assert suite.where("train", "batch") == "base/base.yaml:10"
    assert suite.where("train", "lr") == "s.yaml:3"
    assert suite.where("models", 0, "id") == "s.yaml:5"
    assert suite.where("entries", 0, "config", "d_sae") == "base/base.yaml:8"


def test_a_mistake_in_the_extended_file_names_that_file(tmp_path, monkeypatch):
    write(tmp_path, MINIMAL.replace("d_sae: 64}", "d_sae: 64}, more: 1"), "base.yaml")
    assert problems(tmp_path, "extends: base.yaml\n", monkeypatch)[0].startswith(
        "base.yaml:8 entries[0].more: unknown key."
    )


def test_extends_of_itself_or_of_nothing(tmp_path, monkeypatch):
    write(tmp_path, "extends: s.yaml\n", "other.yaml")
    assert problems(tmp_path, "name: x\nextends: other.yaml\n", monkeypatch) == [
        "other.yaml:1 extends: s.yaml extends this file in turn. Cut the circle."
    ]
    assert problems(tmp_path, "extends: othr.yaml\n", monkeypatch) == [
        "s.yaml:1 extends: othr.yaml: no such file. Did you mean 'other.yaml'? Built-in suites: quickstart."
    ]
    assert problems(tmp_path, "extends: 3\n", monkeypatch)[0].startswith(
        "s.yaml:1 extends: got 3 but the path of a suite"
    )


def test_builtin_suites_load_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a run folder of that name does not hide the suite
    for name in builtin_suites():
        assert load_suite(name).config.name == name
    assert load_suite("quickstart").where("budget").startswith("quickstart.yaml:")


def test_a_suite_can_extend_a_builtin_one(tmp_path):
    config = load_suite(write(tmp_path, "extends: quickstart\nbudget: {tokens: 1_000}\n", "small.yaml")).config
    assert config.name == "small"
    assert config.budget.tokens == 1000
    assert config.entries


def test_missing_files_suggest_near_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, MINIMAL, "reference.yaml")
    for source, close in (("refrence.yaml", "reference.yaml"), ("quickstrat", "quickstart")):
        with pytest.raises(SuiteError) as caught:
            load_suite(source)
        assert len(str(caught.value).splitlines()) == 1
        assert f"Did you mean {close!r}?" in str(caught.value)


def test_json_schema_describes_the_whole_file():
    schema = json_schema()
    assert {"schema", "name", "models", "datasets", "entries", "budget"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert {"type": "string"} in schema["$defs"]["InitFrom"]["anyOf"]


def test_json_schema_describes_plugins():
    @dataclass(frozen=True)
    class Config:
        d_sae: int
        k: int = 4

    definitions = json_schema({"topk": Config}, {"docs": Config})["$defs"]
    rule = definitions["EntryConfig"]["allOf"][0]
    assert rule["if"]["properties"]["architecture"] == {"const": "topk"}
    assert rule["then"]["properties"]["config"]["properties"]["k"] == {"type": "integer", "default": 4}
    options = definitions["DatasetConfig"]["allOf"][0]["then"]
    assert list(options["properties"]) == ["plugin", "d_sae", "k"]
    assert options["required"] == ["d_sae"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), at=st.integers(0, len(MINIMAL)))
def test_no_text_gives_anything_but_a_suite_or_one_clear_error(tmp_path, text, at):
    path = tmp_path / "fuzz.yaml"
    path.write_bytes((MINIMAL[:at] + text + MINIMAL[at:]).encode("utf-8", "surrogatepass"))
    with suppress(SuiteError):
        assert load_suite(path).config.entries


def test_names_that_no_file_system_takes():
    for name in ("x" * 5000 + ".yaml", "a\0b.yaml"):
        with pytest.raises(SuiteError):
            load_suite(name)


def test_every_suite_of_the_repository_loads():
    for path in sorted((Path(__file__).parents[3] / "benchmarks" / "suites").glob("*.yaml")):
        assert load_suite(path).config.name == path.stem
