from __future__ import annotations

import json
import subprocess
import sys

import pytest

from saebench.cli import main

TINY = ["--d-in", "16", "--d-sae", "64", "--k", "4", "--batch", "32", "--rounds", "1", "--threads", "1"]


def call(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["bench-backends", *arguments])
    return ended.value.code


def test_json_is_one_object_and_the_bar_stands_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*TINY, "--backend", "plain", "--json") == 0
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert data["rounds"] == data["threads"] == 1
    (shape,) = data["shapes"]
    assert (shape["architecture"], shape["d_in"], shape["d_sae"], shape["l0"], shape["batch"]) == (
        "topk",
        16,
        64,
        4,
        32,
    )
    assert list(shape["backends"]) == ["plain"]
    assert shape["backends"]["plain"]["ratio"] == 1.0
    assert data["advice"][0].startswith(f"`auto` takes {data['auto']}")
    assert "measuring plain" in captured.err


def test_sizes_that_are_not_given_are_the_reference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from saebench.measure.backends import run as bench

    seen = []

    def run(shapes, chosen, **_):
        seen.extend((s.d_in, s.d_sae, s.l0, s.train.batch, s.part.architecture) for s in shapes)
        timing = bench.Timing(chosen.auto, (0.5,), (0.25,), 0.0, 1)
        return [bench.Measured(shape, (timing,)) for shape in shapes]

    monkeypatch.setattr(bench, "run", run)
    assert call("--large") == 0
    assert call("--d-sae", "128", "--architecture", "jumprelu") == 0
    assert seen == [
        (512, 8192, 32, 2048, "topk"), (768, 24576, 32, 4096, "topk"), (512, 128, 32.0, 2048, "jumprelu")
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "topk, d_in 768, d_sae 24576, L0 32, batch 4096" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "quickstart", "--k", "4", "--large"], "Leave out --k, --large"),
        (["--large", "--d-in", "16"], "--large adds a shape of its own"),
        (["--rounds", "0"], "--rounds"),
        (["--backend", "fast"], "Use one of bf16-screen, onednn, plain"),
        (["--architecture", "tpk"], "no such architecture"),
        (["--d-sae", "16"], "--k got 32 but d_sae is 16"),
        (["--suite", "nowhere.yaml"], "nowhere.yaml"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_bad_arguments(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_a_misspelt_variable_is_told_before_a_run_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "quickstart", "--backend", "fast", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    monkeypatch.setenv("SAEBENCH_BACKEND", "fast")
    with pytest.raises(SystemExit) as ended:
        main(["run", "quickstart", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.count("Use one of bf16-screen, onednn, plain") == 2
    assert not (tmp_path / "run").exists()


def test_importing_the_command_and_its_work_loads_no_torch() -> None:
    code = (
        "import sys; import saebench.cli.commands.bench_backends, saebench.measure.backends.run, "
        "saebench.measure.backends.report\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
