from __future__ import annotations

from pathlib import Path

import pytest

from saebench.api import MachineError, SuiteError
from saebench.host import load_catalog
from saebench.jobs import plan_suite
from saebench.measure.backends import choice, run
from saebench.measure.backends import shapes as bench_shapes

CPU = {"device": "cpu", "rounds": 2, "threads": 1}


@pytest.fixture(scope="module")
def catalog():
    return load_catalog(())


@pytest.fixture(scope="module")
def tiny(catalog):
    return bench_shapes.shape_of(catalog, "topk", d_in=16, d_sae=64, k=4, batch=32)


def test_k_means_what_the_architecture_calls_it(catalog):
    sizes = {"d_in": 16, "d_sae": 64, "batch": 32}
    assert bench_shapes.shape_of(catalog, "topk", k=4, **sizes).part.config["k"] == 4
    jumprelu = bench_shapes.shape_of(catalog, "jumprelu", k=4, **sizes)
    assert (jumprelu.part.config["target_l0"], jumprelu.l0) == (4.0, 4.0)
    assert bench_shapes.shape_of(catalog, "relu-l1", k=4, sparsity_asked=False, **sizes).l0 is None
    with pytest.raises(SuiteError, match="--k 4: architecture 'relu-l1' has neither"):
        bench_shapes.shape_of(catalog, "relu-l1", k=4, **sizes)


@pytest.mark.parametrize(
    ("architecture", "k", "words"),
    [
        ("nonsense", 4, "no such architecture. Known: .*topk"),
        ("ssae", 4, "starts from another"),
        ("control-pca", 4, "takes no training step"),
        ("topk", 65, "--k got 65 but d_sae is 64"),
    ],
)
def test_shapes_that_cannot_be(catalog, architecture, k, words):
    with pytest.raises(SuiteError, match=words):
        bench_shapes.shape_of(catalog, architecture, d_in=16, d_sae=64, k=k, batch=32)


def test_the_shapes_of_a_suite_are_its_distinct_arms(catalog, tmp_path: Path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        """
schema: 1
name: shapes
datasets: {truth: {plugin: synthetic, d_in: 16, n_features: 32}}
entries:
  - {name: a, architecture: topk, dataset: truth, config: {d_sae: 64}, sweep: {k: [2, 4]}}
  - {name: b, architecture: topk, dataset: truth, config: {d_sae: 64, k: 4, k_aux: 3}}
  - {name: c, architecture: ssae, dataset: truth, init_from: b}
  - {name: d, architecture: jumprelu, dataset: truth, config: {d_sae: 64, target_l0: 4}, train: {batch: 96}}
train: {batch: 128}
budget: {primary: tokens, tokens: 1000}
seeds: {init: [0, 1]}
controls: true
""",
        encoding="utf-8",
    )
    shapes = bench_shapes.shapes_of_plan(plan_suite(suite), catalog)
    found = {(s.part.architecture, s.d_in, s.d_sae, s.l0, s.train.batch) for s in shapes}
    assert found == {("topk", 16, 64, 2, 128), ("topk", 16, 64, 4, 128), ("jumprelu", 16, 64, 4, 96)}
    assert len(shapes) == 3


def test_a_shape_that_memory_cannot_hold_is_refused(tiny, monkeypatch):
    own, product = tiny.cost.training_memory_bytes(32), 4 * 32 * 64
    monkeypatch.setattr(bench_shapes, "memory_limit", lambda device, gb: bench_shapes.FREE_SHARE * (own + product))
    assert bench_shapes.refusal(tiny, 1, "cpu") is None
    assert "one back end at a time" in bench_shapes.refusal(tiny, 2, "cpu")
    monkeypatch.setattr(bench_shapes, "memory_limit", lambda device, gb: bench_shapes.FREE_SHARE * own)
    assert "one back end at a time" not in bench_shapes.refusal(tiny, 2, "cpu")
    with pytest.raises(MachineError, match=r"d_sae 64.*free\. Use a smaller d_sae or batch"):
        run.run([tiny], choice.choice("cpu", ["plain"]), **CPU)
