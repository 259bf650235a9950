from __future__ import annotations

import dataclasses

import pytest

from saebench.host import load_catalog
from saebench.measure.backends import report, shapes
from saebench.measure.backends.choice import Choice
from saebench.measure.backends.run import Measured, Timing
from saebench.nn.kernels import backends

CPU = {"device": "cpu", "rounds": 2, "threads": 1}
CHOSEN = Choice("bf16-screen", "units", "bf16-screen", ("bf16", "onednn"), backends.BACKENDS, {})


@pytest.fixture(scope="module")
def catalog():
    return load_catalog(())


@pytest.fixture(scope="module")
def tiny(catalog):
    return shapes.shape_of(catalog, "topk", d_in=16, d_sae=64, k=4, batch=32)


def measured(shape, **seconds):
    return Measured(
        shape,
        tuple(
            Timing(name.replace("_", "-"), tuple(rounds), tuple(r / 2 for r in rounds), 0.001, 3_000_000)
            for name, rounds in seconds.items()
        ),
    )


def said(one, chosen=CHOSEN):
    return " ".join(report.advice([one], chosen))


def test_advice_only_where_it_is_worth_it(tiny):
    text = said(measured(tiny, bf16_screen=[1.0, 1.0, 1.0], onednn=[0.95, 0.92, 2.0], plain=[2.0, 2.0, 2.0]))
    assert "leave the choice as it is" in text
    text = said(measured(tiny, bf16_screen=[1.0, 1.0, 1.0], onednn=[0.95] * 3, plain=[0.8] * 3))
    assert "plain measured faster than bf16-screen: 1.25x at topk, d_in 16" in text
    assert "SAEBENCH_BACKEND=plain saebench run" in text
    assert "onednn measured" not in text
    assert report.RECORDED in text
    assert "busy" not in text


def test_what_was_faster_in_too_few_rounds_is_measured_again(tiny):
    text = said(measured(tiny, bf16_screen=[2.0, 2.0, 2.0, 0.5, 0.5], plain=[1.0] * 5))
    assert "plain looked faster (2.00x" in text and "measure again" in text
    assert "Until then, leave the choice" in text
    assert "To force it" not in text
    assert "To force it" in said(measured(tiny, bf16_screen=[2.0, 2.0, 2.0, 2.0, 0.5], plain=[1.0] * 5))


def test_advice_on_a_forced_machine_a_busy_one_and_a_single_back_end(tiny):
    forced = dataclasses.replace(CHOSEN, in_use="plain", left_out={"onednn": "not built"})
    text = said(measured(tiny, bf16_screen=[1.0, 2.0, 3.0], plain=[2.0, 2.0, 2.0]), forced)
    assert "SAEBENCH_BACKEND=plain is set" in text
    assert "the machine was busy" in text
    assert "onednn was not measured: not built" in text
    assert "Nothing was compared" in said(measured(tiny, plain=[2.0, 2.0, 2.0]))


def test_the_page_fits_80_columns(tiny):
    one = measured(tiny, bf16_screen=[123.4567] * 3, onednn=[0.012345] * 3, plain=[0.00012345] * 3)
    failed = Timing("onednn", failed="its process ended with signal 9 (was memory short?) " + "and more " * 20)
    one = dataclasses.replace(
        one, timings=(one.timings[0], failed, dataclasses.replace(one.timings[2], fallback_rows=None))
    )
    page = report.page([one], CHOSEN, **CPU)
    assert max(map(len, page.splitlines())) <= 80
    assert "bf16-screen *" in page
    assert "123457" in page and "0.12" in page and "0.10 %" in page
    assert "signal 9" in page


def test_what_is_missing_is_null_with_a_reason(tiny):
    good = Timing("bf16-screen", (1.0, 1.0), (0.5, 0.5), None, 10)
    one = Measured(tiny, (good, Timing("plain", failed="broke")))
    data = report.as_data([one], CHOSEN, **CPU)["shapes"][0]
    assert data["backends"]["plain"] == {
        "step_s": None, "ratio": None, "product_s": None, "fallback_rows": None, "peak_bytes": None, "reason": "broke"
    }  # fmt: skip
    own = data["backends"]["bf16-screen"]
    assert (own["step_s"], own["ratio"], own["product_s"], own["step_rounds_s"]) == (1.0, 1.0, 0.5, [1.0, 1.0])
    assert own["fallback_rows"] is None and "does not tell" in own["reason"]
    assert data["ratio_to"] == "bf16-screen"
