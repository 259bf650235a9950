"""`saebench new` writes packages that `saebench check` passes as they are."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from saebench.cli import cli
from saebench.cli.authors.scaffold import KINDS

METADATA = "Metadata-Version: 2.1\nName: saebench-{name}\nVersion: 0.1.0\n"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("saebench_"):
            del sys.modules[name]


def saebench(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.return_value or 0, result.output


def installed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pip install -e` does it: its source on the path, with the entry points of its pyproject beside it."""
    import tomllib

    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["saebench"]
    info = folder / "src" / f"saebench_{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=name))
    lines = "\n".join(f"{key} = {value}" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[saebench]\n{lines}\n")
    monkeypatch.syspath_prepend(str(folder / "src"))
    importlib.invalidate_caches()


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_writes_passes_check_as_it_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"my-{kind}"
    status, written = saebench("new", kind, name)
    folder = Path(f"saebench-{name}")
    assert status == 0 and f"saebench check {name}" in written
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    module = f"saebench_my_{kind}"
    assert {"pyproject.toml", "README.md", f"src/{module}/__init__.py", "tests/test_contract.py"} <= files
    assert ".github/workflows/test.yml" in files
    assert "Source:" in (folder / "README.md").read_text()
    left = re.compile(r"@(name|module|class|kind)@")
    assert not [path for path in files if left.search((folder / path).read_text())]
    installed(name, folder, monkeypatch)
    status, shown = saebench("check", name)
    assert status == 0, shown
    assert f"{kind} '" in shown and " 0 fail" in shown


def test_a_failure_says_what_was_found_and_what_to_do() -> None:
    Path("mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from saebench.api import CellMetricSpec, MetricInfo, MetricResult, hookimpl\n"
        "INFO = MetricInfo('mine', 'fraction', 'lower', 'own', 'Nothing.')\n"
        "class Mine:\n"
        "    def __init__(self, context): pass\n"
        "    def update(self, stream, scored): pass\n"
        "    def compute(self): return MetricResult({})\n"
        "@hookimpl\n"
        "def saebench_metrics(): return [CellMetricSpec('mine', '1', (INFO,), Mine)]\n"
    )
    status, shown = saebench("check", "mine", "--plugin", "mine.py")
    assert status == 3
    assert "  fail  every id is computed, in its unit and direction" in shown
    assert "found: it gives [], its spec provides ['mine']" in shown
    assert "hint:  Use MetricValue.of" in shown


def test_a_name_that_nobody_has_and_one_that_is_none() -> None:
    with pytest.raises(Exception, match=r"no plugin named 'topkk'\. .*'topk'"):
        saebench("check", "topkk")
    with pytest.raises(Exception, match="is no name of a plugin"):
        saebench("new", "metric", "My_Metric")
    Path("full").mkdir()
    Path("full", "file").touch()
    with pytest.raises(Exception, match="has something in it"):
        saebench("new", "metric", "mine", "--folder", "full")


def test_a_plugin_that_does_not_load_is_said() -> None:
    Path("broken.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(Exception, match=r"broken of file broken\.py: .*nothing_of_this_name"):
        saebench("check", "broken", "--plugin", "broken.py")
