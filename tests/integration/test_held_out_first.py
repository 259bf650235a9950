"""Held-out data that cannot be used ends a cell before anything is spent on its training."""

from __future__ import annotations

from pathlib import Path

import pytest
from suites import small_suite

from saebench.api.splits import is_held_out
from saebench.artifacts import iter_records
from saebench.jobs import run_suite

pytestmark = pytest.mark.usefixtures("without_pages")

SUITE = """
schema: 1
name: short
models: [{{id: {folder}/model, hookpoints: [layers.1], context: 32}}]
datasets:
  mine: {{plugin: local, path: {folder}/text.txt}}
  short: {{plugin: local, path: {folder}/short.txt}}
entries:
  - {{name: topk, architecture: topk, dataset: mine, config: {{d_sae: 64, k: 4}}}}
evaluation: {{datasets: [mine, short], tokens: 500, loss_tokens: 200, density_tokens: 500}}
budget: {{primary: tokens, tokens: 4_000}}
metrics: [variance-explained]
"""


def test_held_out_text_that_fills_no_window_costs_no_training(tmp_path: Path) -> None:
    small_suite(tmp_path)
    texts = [f"walk {number}" for number in range(40)]
    held_out = next(text for text in texts if is_held_out(text))
    (tmp_path / "short.txt").write_text("\n\n".join([held_out, *(text for text in texts if not is_held_out(text))]))
    (tmp_path / "short.yaml").write_text(SUITE.format(folder=tmp_path))
    result = run_suite(tmp_path / "short.yaml", out=tmp_path / "run")
    assert result.exit_status == 4
    ((_, record),) = iter_records(tmp_path / "run")
    assert record["facts"]["status"] == "failed"
    assert (
        "dataset 'short' (plugin local): its held-out part does not fill one window"
        in record["facts"]["error"]["message"]
    )
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
