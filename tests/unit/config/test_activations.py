"""The suite's `activations` block."""

from __future__ import annotations

import pytest

from saebench.api import SuiteError
from saebench.config import load_suite

SUITE = """\
schema: 1
name: s
datasets: {docs: {plugin: docs}}
entries: [{name: topk, architecture: topk, dataset: docs}]
budget: {primary: tokens, tokens: 1_000}
"""


def load(folder, block):
    path = folder / "s.yaml"
    path.write_text(f"{SUITE}{block}\n")
    return load_suite(path).config.activations


def test_defaults(tmp_path):
    block = load(tmp_path, "")
    assert (block.source, block.dtype, block.shuffle) == ("store", "float32", 65_536)
    assert (block.build, block.prefetch, block.quota_gb) == ("ahead", "auto", None)


def test_all_keys(tmp_path):
    block = load(
        tmp_path,
        "activations: {source: live, dtype: bfloat16, shuffle: 1_024, build: parallel, prefetch: 2, quota_gb: 0.5}",
    )
    assert (block.source, block.dtype, block.shuffle) == ("live", "bfloat16", 1024)
    assert (block.build, block.prefetch, block.quota_gb) == ("parallel", 2, 0.5)
    assert load(tmp_path, "activations: {prefetch: 0}").prefetch == 0


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{source: disk}", "activations.source: got 'disk' but one of store, live is expected."),
        ("{dtype: float8}", "activations.dtype: got 'float8' but one of float32, float16, bfloat16 is expected."),
        ("{shuffle: 0}", "activations.shuffle: got 0 but a whole number of at least 1 is expected."),
        ("{build: never}", "activations.build: got 'never' but one of ahead, parallel is expected."),
        ("{prefetch: -1}", "activations.prefetch: got -1 but a whole number of at least 0 or auto is expected."),
        ("{prefetch: 1.5}", "activations.prefetch: got 1.5"),
        ("{quota_gb: 0}", "activations.quota_gb: got 0 but a number over 0 is expected."),
        ("{sorce: live}", "activations.sorce: unknown key. Did you mean 'source'?"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path, block, message):
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, f"activations: {block}")
    assert "s.yaml:6" in str(caught.value)
    assert message in str(caught.value)
