from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from saebench.api import PluginError, SuiteError
from saebench.api.specs import resolve
from saebench.host import Catalog, load_catalog

ARCHITECTURE = """
from dataclasses import dataclass
from saebench.api import ArchitectureSpec, Cost, hookimpl
@dataclass(frozen=True)
class Config:
    d_sae: int
@hookimpl
def saebench_architectures():
    return [ArchitectureSpec("{name}", "1", Config, "nowhere:build", lambda config, site: Cost(1, 4, 1, 1, 1, 1, 1))]
"""


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


def test_built_ins_come_in_through_entry_points() -> None:
    catalog = load_catalog()
    assert catalog.problems == catalog.clashes == []
    assert {"topk", "jumprelu", "expander", "ssae", "batch-topk", "relu-l1"} <= set(catalog.architectures)
    assert {"control-random", "control-permuted", "control-pca", "control-identity"} <= set(catalog.architectures)
    assert {"docs", "local", "hub", "faithful", "subdomain", "activations", "synthetic"} <= set(catalog.datasets)
    assert {registered.distribution for registered in catalog.architectures.values()} == {"saebench-harness"}


def test_loading_the_catalog_imports_no_torch() -> None:
    code = "import sys, saebench.host as host; host.load_catalog(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_local_file_is_a_plugin(tmp_path: Path) -> None:
    catalog = load_catalog([write(tmp_path / "mine.py", ARCHITECTURE.format(name="mine"))])
    registered = catalog.architecture("mine")
    assert registered.distribution == f"file {tmp_path / 'mine.py'}"
    assert registered.version == "local"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("x = (", "SyntaxError"),
        ("x = 1", "no hook implementation found"),
        (
            "from saebench.api import hookimpl\n@hookimpl\ndef saebench_architectures(): return [1]",
            "must return ArchitectureSpec, got int",
        ),
        ("from saebench.api import hookimpl\n@hookimpl\ndef saebench_architectures(): return 1/0", "ZeroDivisionError"),
        ("def saebench_architecures(): return []", "saebench_architecures is no hook"),
        (
            "from saebench.api import hookimpl\n@hookimpl\ndef saebench_metrics(wrong): return []",
            "PluginValidationError",
        ),
    ],
)
def test_a_broken_plugin_is_listed_and_the_others_are_used(tmp_path: Path, text: str, words: str) -> None:
    good = write(tmp_path / "good.py", ARCHITECTURE.format(name="good"))
    catalog = load_catalog([write(tmp_path / "bad.py", text), good])
    (problem,) = catalog.problems
    assert problem.origin.name == "bad"
    assert words in problem.message
    assert "Traceback" in problem.details
    assert "good" in catalog.architectures
    assert "topk" in catalog.architectures
    with pytest.raises(PluginError, match="Broken plugins that may have registered it: bad"):
        catalog.architecture("something-else")


def test_a_missing_file_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    (problem,) = load_catalog([tmp_path / "none.py"]).problems
    assert "no such file" in problem.message


METRIC = """
from saebench.api import CellMetricSpec, MetricInfo, hookimpl
def info(id):
    return MetricInfo(id, "fraction", "lower", "reconstruction", "x")
@hookimpl
def saebench_metrics():
    return {specs}
"""


def test_two_plugins_with_one_name_fail_only_what_names_it(tmp_path: Path) -> None:
    files = [write(tmp_path / name, ARCHITECTURE.format(name="same")) for name in ("a.py", "b.py")]
    said: list[str] = []
    catalog = load_catalog(files, said.append)
    with pytest.raises(PluginError, match=r"architecture 'same' is registered by file .*a\.py.* and by file .*b\.py"):
        catalog.architecture("same")
    assert catalog.architecture("topk")
    (line,) = said
    assert line.startswith("warning: architecture 'same' is registered by ")
    with pytest.raises(SuiteError, match="no architecture named 'other'"):
        catalog.architecture("other")


def test_two_metrics_with_one_id_fail_only_what_names_it(tmp_path: Path) -> None:
    specs = """[CellMetricSpec("mine", "1", (info("fvu"), info("mse")), "nowhere:make"), CellMetricSpec("own", "1",
    (info("own"),), "nowhere:make")]"""
    catalog = load_catalog([write(tmp_path / "m.py", METRIC.format(specs=specs))])
    (clash,) = catalog.clashes
    assert set(clash.names) == {"fvu", "mse"}
    assert clash.message.startswith("metrics ")
    assert "'mine'" in clash.message
    assert "'reconstruction'" in clash.message
    for name in ("mine", "reconstruction"):
        with pytest.raises(PluginError, match=r"metrics '.*' are registered by"):
            catalog.cell_metric(name)
    assert catalog.cell_metric("own")
    assert catalog.cell_metric("sparsity")


def test_a_metric_id_that_is_no_name_is_a_problem(tmp_path: Path) -> None:
    specs = '[CellMetricSpec("mine", "1", (info("a b"),), "nowhere:make")]'
    (problem,) = load_catalog([write(tmp_path / "m.py", METRIC.format(specs=specs))]).problems
    assert "an id in CellMetricSpec.provides: got 'a b'" in problem.message


def test_streams_that_metrics_add_have_names_of_their_own(tmp_path: Path) -> None:
    stream = 'StreamSpec("{stream}", "nowhere:ids")'
    added = f'CellMetricSpec("{{name}}", "1", (info("{{name}}"),), "nowhere:make", adds=({stream},))'
    text = METRIC.replace("import CellMetricSpec", "import CellMetricSpec, StreamSpec")

    def load(*pairs: tuple[str, str]) -> Catalog:
        specs = ", ".join(added.format(name=name, stream=stream) for name, stream in pairs)
        return load_catalog([write(tmp_path / "m.py", text.format(specs=f"[{specs}]"))])

    assert set(load(("a", "long"), ("b", "longer")).added_streams()) == {"long", "longer"}
    (clash,) = load(("a", "long"), ("b", "long")).clashes
    assert clash.names == ("long",)
    (problem,) = load(("a", "density")).problems
    assert "a stream in CellMetricSpec.adds: got 'density'" in problem.message


def test_two_files_of_one_name_are_two_plugins(tmp_path: Path) -> None:
    text = ARCHITECTURE.replace('"nowhere:build"', 'f"{{__name__}}:Config"')
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "mine.py", text.format(name=f"of-{folder}"))
    catalog = load_catalog([tmp_path / "a" / "mine.py", tmp_path / "b" / "mine.py"])
    specs = [catalog.architecture(f"of-{folder}").spec for folder in ("a", "b")]
    assert [resolve(spec.build) is spec.config for spec in specs] == [True, True]


def test_unknown_names_get_a_suggestion() -> None:
    catalog = load_catalog()
    with pytest.raises(SuiteError, match="Did you mean 'jumprelu'"):
        catalog.architecture("jumpreul")
    with pytest.raises(SuiteError, match=r"no dataset plugin named 'dcos'\. Did you mean 'docs'"):
        catalog.dataset("dcos")


def test_observers_change_nothing(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    write(
        tmp_path / "loud.py",
        "from saebench.api import hookimpl\n@hookimpl\ndef saebench_cell_finished(record): raise RuntimeError('ouch')",
    )
    quiet = (
        "from pathlib import Path\nfrom saebench.api import hookimpl\n@hookimpl\n"
        f"def saebench_cell_finished(record): Path({str(seen)!r}).write_text(record['x'])"
    )
    write(tmp_path / "quiet.py", quiet)
    catalog = load_catalog([tmp_path / "loud.py", tmp_path / "quiet.py"])
    (line,) = catalog.observe("saebench_cell_finished", record={"x": "yes"})
    assert "loud" in line
    assert "RuntimeError: ouch" in line
    assert seen.read_text() == "yes"


def test_a_given_file_that_cannot_be_used_is_a_line(tmp_path: Path) -> None:
    said: list[str] = []
    load_catalog([tmp_path / "none.py"], said.append)
    (line,) = said
    assert line.startswith("warning: plugin file ")
    assert "no such file" in line
    load_catalog([write(tmp_path / "good.py", ARCHITECTURE.format(name="good"))], said.append)
    assert said == [line]
