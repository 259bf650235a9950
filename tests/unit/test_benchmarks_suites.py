"""The suites for real models can be planned from configs alone, and say what they cost."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from saebench.cells.plan import Plan
from saebench.jobs import plan_suite

HERE = Path(__file__).parents[2] / "benchmarks" / "suites"
SPEC = importlib.util.spec_from_file_location("suites_predict", HERE / "predict.py")
assert SPEC is not None
assert SPEC.loader is not None
predict: ModuleType = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(predict)
EXPECTED = {
    # d_in, hookpoints, cells that train, contenders' architectures
    "gpt2": (768, 1, 42, {"topk", "batch-topk", "jumprelu", "relu-l1", "expander", "ssae"}),
    "pythia-160m": (768, 2, 54, {"topk", "batch-topk", "jumprelu", "relu-l1", "expander"}),
    "llama-3.2-1b": (2048, 1, 27, {"topk", "batch-topk", "jumprelu", "relu-l1", "expander"}),
    "qwen2.5-3b": (2048, 2, 66, {"topk", "batch-topk", "jumprelu", "relu-l1", "expander"}),
    "gemma-2-2b": (2304, 3, 198, {"topk", "batch-topk", "jumprelu", "relu-l1", "expander", "ssae"}),
}


@pytest.fixture(scope="module")
def plans() -> Iterator[dict[str, tuple[Plan, float]]]:
    """Every suite planned for the card, and the seconds that it took; no weights, no tokenizer, no network."""
    found = {}
    with predict.hub():
        for suite in predict.SUITES:
            started = time.perf_counter()
            found[suite] = (plan_suite(HERE / f"{suite}.yaml", device=predict.CARD), time.perf_counter() - started)
        yield found


def test_there_is_a_suite_for_every_model() -> None:
    assert sorted(predict.SUITES) == sorted(EXPECTED)
    assert {path.parent.name for path in HERE.glob("configs/*/config.json")} == {
        model.partition("/")[2] for model in predict.MODELS
    }
    assert {path.stem for path in HERE.glob("*.yaml")} == {*EXPECTED, "frontier"}


@pytest.mark.parametrize("suite", EXPECTED)
def test_a_suite_is_planned_from_a_config_alone(plans: dict[str, tuple[Plan, float]], suite: str) -> None:
    d_in, hookpoints, n_trained, architectures = EXPECTED[suite]
    plan, seconds = plans[suite]
    trained = [cell for cell in plan.cells if not cell.control]
    assert len(trained) == n_trained
    assert {cell.part.architecture for cell in trained} == architectures
    assert {cell.d_in for cell in trained} == {d_in}
    assert len({cell.model.hookpoint_name for cell in trained if cell.model}) == hookpoints
    assert len({cell.init_seed for cell in trained}) == 3
    assert {cell.model.load.dtype for cell in trained if cell.model} == {"bfloat16"}
    assert [line for line in plan.warnings if "are not here" in line]
    assert seconds < 60  # 1 s to 4 s on 2 cores with nothing beside it


@pytest.mark.parametrize("suite", EXPECTED)
def test_what_a_suite_says_of_its_cost_is_up_to_date(plans: dict[str, tuple[Plan, float]], suite: str) -> None:
    predicted = predict.on_card(suite)
    for what, says, now in zip(("hours", "GB"), predict.said(suite), predicted, strict=True):
        assert says == pytest.approx(now, rel=0.2, abs=1), f"{suite} {what}: run benchmarks/suites/predict.py --write"
