"""`benchmarks/gpu`: its short form runs on the processor; what is slow is cut, what fails is told, the rest goes on."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are beside the tests in the repository")


@pytest.fixture
def load(monkeypatch):
    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location(f"gpu_{name.replace('.', '_')}", FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The short form on the processor; on a busy machine it may take longer than its minute."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    done = check("--device", "cpu", "--short", "--limit", "400", "--out", str(out))
    assert done.returncode == 0, done.stdout
    return done.stdout, json.loads((out / "gpu-check.json").read_text("utf-8")), out


def test_the_short_form_checks_everything(short, load):
    shown, result, out = short
    assert list(result["sections"]) == list(load("check").SECTIONS)
    assert {section["status"] for section in result["sections"].values()} == {"ok"}
    for name, section in result["sections"].items():
        assert section["figures"], name
    assert result["machine"]["torch"] and result["machine"]["packages"]["numpy"]
    assert shown.strip() == load("table").table(result).strip() == (out / "gpu-check.txt").read_text("utf-8").strip()
    assert sorted(path.name for path in out.iterdir()) == ["gpu-check.json", "gpu-check.log", "gpu-check.txt"]


def figures(result, section):
    return {figure["name"]: figure for figure in result["sections"][section]["figures"]}


def test_its_sections_did_what_they_say(short):
    _, result, _ = short
    curves = figures(result, "curves")
    assert 0 < curves["topk: loss, all 40 steps"]["value"] < curves["topk: loss, all 40 steps"]["bound"]
    assert figures(result, "repeat")["relu-l1: equal bits when killed three times"]["ok"]
    assert figures(result, "memory")["too-big: over_budget"]["ok"]
    assert figures(result, "memory")["greedy: says why"]["ok"]
    assert figures(result, "steps")["512/8192/32/2048 our step over the product float32"]["value"] > 0
    assert figures(result, "matching")["2,048 latents: proven relative gap"]["value"] < 1e-6
    assert figures(result, "tests")["tests passed"]["value"] > 40


def test_an_unknown_section_and_a_folder_without_wheels_are_refused(tmp_path):
    done = check("--sections", "curves,speed", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "no section speed. Use all, or some of machine, curves," in done.stderr
    done = check("--device", "cpu", "--sections", "machine", "--wheels", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "no .whl files there" in done.stderr


def test_without_a_card_the_check_fails_and_says_so(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    done = check("--device", "cuda", "--sections", "machine,matching", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "FAILED torch sees a CUDA device: no: use --device cpu, or mend driver and torch" in done.stdout
    assert "matching: failed" in done.stdout  # it goes on, and says what it found


def section(tmp_path: Path, body: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        f"import json, os, sys, time\nfrom pathlib import Path\npath = Path({str(tmp_path / 'n')!r})\n{body}",
    ]


NOTED = "path.write_text(json.dumps({'ended': %s, 'figures': [], 'failures': %s, 'facts': {'half': 1}}))\n"


def test_a_slow_section_is_cut_with_its_children_and_keeps_what_it_found(load, tmp_path):
    guard = load("guard")
    grandchild = "import subprocess\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    pid = f"Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\ntime.sleep(60)\n"
    started = time.perf_counter()
    found = guard.guarded(
        section(tmp_path, NOTED % (False, []) + grandchild + pid), tmp_path / "n", tmp_path / "log", limit_s=4.0
    )
    assert time.perf_counter() - started < 30
    assert found["status"] == "cut"
    assert found["facts"]["half"] == 1
    assert "after 4 s" in found["facts"]["cut"]
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    deadline = time.perf_counter() + 10
    while state.exists() and state.read_text().split()[2] not in "ZX" and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] in "ZX"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (NOTED % (True, []), "ok", ""),
        (NOTED % (True, ["too far apart"]), "failed", "too far apart"),
        (NOTED % (False, []), "failed", "ended with status 0"),
        (NOTED % (False, []) + "print('the card is gone', flush=True)\nos._exit(9)", "failed", "the card is gone"),
        ("sys.exit('nothing was noted')", "failed", "nothing was noted"),
    ],
)
def test_what_became_of_a_section(load, tmp_path, body, status, said):
    found = load("guard").guarded(section(tmp_path, body), tmp_path / "n", tmp_path / "log", limit_s=60.0)
    assert found["status"] == status
    assert said in " ".join(found["failures"])


def result_of(*statuses: str) -> dict:
    sections = {
        f"s{index}": {
            "title": "t", "status": status, "seconds": 1.0, "limit_s": 2.0, "figures": [], "facts": {},
            "failures": ["it broke"] if status == "failed" else [],
        }
        for index, status in enumerate(statuses)
    }  # fmt: skip
    return {"device": "cpu", "short": False, "seconds": 3.0, "machine": {}, "sections": sections}


@pytest.mark.parametrize(
    ("statuses", "status"), [(("ok", "ok"), 0), (("ok", "failed", "cut"), 1), (("ok", "cut"), 3), ((), 0)]
)
def test_exit_status(load, statuses, status):
    table = load("table")
    assert table.exit_status(result_of(*statuses)) == status
    shown = table.table(result_of(*statuses))
    assert f"exit status {status}" in shown
    assert ("FAILED it broke" in shown) == ("failed" in statuses)


def test_figures_over_their_bound_are_failures(load, tmp_path):
    notes = load("notes").Notes(tmp_path / "n")
    notes.figure("near", 0.5, most=1.0)
    notes.figure("far", 2.0, "s", most=1.0)
    notes.figure("lost", float("nan"), most=1.0)
    notes.figure("told", 9.0)
    notes.check("so it is", True)
    notes.check("equal", False, "W_dec")
    assert notes.failures == [
        "far: 2 s, allowed is at most 1", "lost: nan, allowed is at most 1", "equal: no: W_dec",
    ]  # fmt: skip
    stored = json.loads((tmp_path / "n").read_text("utf-8"))
    assert [figure["ok"] for figure in stored["figures"]] == [True, False, False, None, True, False]
    assert stored["ended"] is False


def test_a_checkout_is_found_without_being_installed(load, tmp_path):
    environment = load("environment")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "HERE = True\n")
    env = environment.prepare(tmp_path / "scratch", wheels)
    program = (
        "import importlib.metadata as m, os, sys\n"
        "found = m.distribution('saebench-harness')\n"
        "print(str(found.locate_file('')), sorted(p.name for p in found.entry_points if p.group == 'saebench'))\n"
        "sys.path.append(os.environ['SAEBENCH_WHEELS'])\n"
        "import carried\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path / "scratch" / "metadata") in done.stdout
    assert "'topk'" in done.stdout and "'core_metrics'" in done.stdout
