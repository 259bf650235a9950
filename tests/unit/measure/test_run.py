from __future__ import annotations

import dataclasses
import json

import pytest

from saebench.api import PluginError
from saebench.host import load_catalog
from saebench.measure.backends import choice, report, run, shapes
from saebench.measure.backends.run import Timing

CPU = {"device": "cpu", "rounds": 2, "threads": 1}


@pytest.fixture(scope="module")
def catalog():
    return load_catalog(())


@pytest.fixture(scope="module")
def tiny(catalog):
    return shapes.shape_of(catalog, "topk", d_in=16, d_sae=64, k=4, batch=32)


def test_every_back_end_that_can_run_is_measured_in_every_round(tiny, capsys):
    chosen = choice.choice("cpu")
    (one,) = run.run([tiny], chosen, **CPU)
    assert [timing.backend for timing in one.timings] == list(chosen.measured)
    for timing in one.timings:
        assert timing.failed is None
        assert len(timing.rounds_s) == len(timing.product_rounds_s) == 2
        assert min(timing.rounds_s + timing.product_rounds_s) > 0
        assert timing.step_s > timing.product_s, "a step holds more than its product"
        assert 0 <= timing.fallback_rows <= 1
        # parameters, gradients and two moments at least
        assert timing.peak_bytes > 16 * 2 * 64 * 16
    assert capsys.readouterr() == ("", "")
    data = report.as_data([one], chosen, **CPU)
    assert json.loads(json.dumps(data)) == data
    assert set(data["shapes"][0]["backends"]) == set(chosen.measured)


def test_a_process_uses_the_back_end_it_is_told_and_its_end_is_a_reason(tiny):
    job = {"shape": dataclasses.asdict(tiny), "device": "cpu", "threads": 1, "plugins": []}
    with run._worker("onednn", job, 1) as worker:
        assert worker.ask(None) == {"ready": True}
        assert len(worker.seconds("steps", 2)) == 2
        assert worker.ask({"do": "facts"})["backend"] == "onednn"
        worker._process.kill()
        assert worker.seconds("steps", 1) == []
        assert "signal 9" in worker.timing().failed
        assert worker.ask({"do": "facts"}) is None


def test_what_fails_in_every_process_is_an_error_with_its_own_words(tiny):
    broken = dataclasses.replace(tiny, part=dataclasses.replace(tiny.part, config={**tiny.part.config, "colour": 3}))
    with pytest.raises(PluginError, match="'colour' is unknown"):
        list(run.measure([broken], ["plain"], **CPU))


def test_ratios_are_medians_of_the_rounds_ratios():
    assert Timing("a", (1.0, 2.0, 9.0)).against(Timing("b", (2.0, 2.0, 3.0))) == 1.0  # of 0.5, 1, 3
    assert Timing("a", (1.0, 2.0, 9.0)).step_s == 2.0
    assert Timing("a", (1.0, 2.0, 9.0)).spread == 0.5  # (2 - 1) / 2
