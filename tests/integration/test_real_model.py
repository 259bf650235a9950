"""Real models and real text: is the fidelity what others measured?"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from saebench.artifacts import iter_records
from saebench.cli import cli
from saebench.jobs import run_suite


def test_topk_on_stories260k_is_as_faithful_as_measured_elsewhere(material: Path, tmp_path: Path) -> None:
    """512 latents, k 16, 400k tokens of TinyStories, output of block 2: FVU about 0.06, over 95 % of loss recovered."""
    (tmp_path / "stories.yaml").write_text(f"""
schema: 1
models: [{{id: {material / "models" / "stories260k"}, hookpoints: [layers.2], context: 256}}]
datasets: {{stories: {{plugin: local, path: {material / "corpora" / "tinystories"}}}}}
entries: [{{name: topk, architecture: topk, dataset: stories, config: {{d_sae: 512, k: 16}}}}]
evaluation: {{tokens: 16_384, loss_tokens: 8_192, density_tokens: 2_048}}
budget: {{primary: tokens, tokens: 400_000}}
""")
    run_suite(tmp_path / "stories.yaml", out=tmp_path / "run")
    ((_, record),) = iter_records(tmp_path / "run")
    metrics = record["facts"]["metrics"]
    assert metrics["fvu"]["value"] == pytest.approx(0.06, abs=0.01)
    assert metrics["ce-recovered-zero"]["value"] > 0.95
    assert metrics["l0"]["value"] <= 16
    # 1.33 where every story is read from its beginning; windows begin anywhere
    assert 1.3 < metrics["ce-clean"]["value"] < 1.6


def test_a_newcomer_with_a_model_and_a_text(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`saebench init`, saved and run as it is but for a smaller budget."""
    monkeypatch.chdir(tmp_path)
    model, text = material / "models" / "stories260k", material / "corpora" / "physics"
    shown = CliRunner().invoke(cli, ["init", "--model", str(model), "--text", str(text)])
    assert shown.exit_code == 0, shown.output
    suite = shown.stdout
    assert "layers.2" in suite
    small = []
    for line in suite.splitlines():
        if line.startswith("budget:"):
            line = "budget: {primary: tokens, tokens: 10_000}"
        elif line.startswith("evaluation:"):
            line = "evaluation: {tokens: 2_000, loss_tokens: 1_000, density_tokens: 2_000}"
        elif line.startswith("seeds:"):
            line = "seeds: {init: [0]}"
        small.append(line.replace("150_000", "10_000"))
    Path("mine.yaml").write_text("\n".join(small))
    result = run_suite("mine.yaml")
    assert set(result.statuses.values()) == {"ok"}
    assert result.folder == Path("runs/mine")
    assert (result.leaderboard / "index.html").is_file()
