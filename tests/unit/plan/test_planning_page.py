"""docs/planning.md says of each card what the table in the code says."""

from __future__ import annotations

from pathlib import Path

from saebench.plan.forecast.card import BYTES_SHARE, FORWARD_SHARE, PARAMETER_BYTES, PRE_ACT_PASSES, PRODUCT_SHARE
from saebench.plan.forecast.devices import DEVICES
from saebench.plan.forecast.memory import BARE_BYTES, KERNEL_BYTES, MODEL_LIBRARY_BYTES, MOST_KERNELS

PAGE = (Path(__file__).parents[3] / "docs" / "planning.md").read_text("utf-8")


def test_every_card_stands_there_with_its_figures() -> None:
    for device in DEVICES.values():
        row = (
            f"| `{device.name}` | {device.title} | {device.half_flops / 1e12:g} | {device.float32_flops / 1e12:g} "
            f"| {device.bytes_per_s / 1e9:g} | {device.memory_bytes / 1e9:g} | {device.source} |"
        )
        assert row in PAGE


def test_what_is_assumed_stands_there() -> None:
    assert f"| share of the peak for a large product | {PRODUCT_SHARE} |" in PAGE
    assert f"| {FORWARD_SHARE['float32']} in float32, {FORWARD_SHARE['bfloat16']} in bfloat16 and float16 |" in PAGE
    assert f"| share of the memory's rate | {BYTES_SHARE} |" in PAGE
    assert f"| passes over the pre-activations of a step | {PRE_ACT_PASSES} |" in PAGE
    assert f"| bytes of each parameter in a step | {PARAMETER_BYTES} |" in PAGE
    both = BARE_BYTES + MODEL_LIBRARY_BYTES
    assert f"| `interpreter` | {BARE_BYTES // 10**6} MB; {both // 10**6} MB with a language model |" in PAGE
    assert f"keeps up to {MOST_KERNELS:,} of them, {KERNEL_BYTES / 1e6:g} MB each" in PAGE
