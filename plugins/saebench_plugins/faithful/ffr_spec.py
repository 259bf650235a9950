"""Spec of the FFR metric. Loads no torch."""

from __future__ import annotations

from saebench.api import CellMetricSpec, MetricInfo

_STREAMS = {"random": "uniform random token ids", "text": "held-out text", "self": "the model's own samples"}

FFR = tuple(
    MetricInfo(id, "fraction", "lower", "faithfulness", text)
    for kind, stream in _STREAMS.items()
    for id, text in (
        (
            f"ffr-{kind}",
            f"Fake feature ratio (our reconstruction): fraction of latents that fire on more than 10 % of tokens of {stream}.",
        ),
        (f"ffr-{kind}-alive", f"ffr-{kind} among latents that fire at all on held-out text."),
    )
)

METRICS: tuple[CellMetricSpec, ...] = (
    CellMetricSpec(
        name="ffr",
        version="1",
        provides=FFR,
        make="saebench_plugins.faithful.ffr:make",
        streams=("random-tokens", "density", "self-sampled"),
        fields=("codes",),
        core=True,
    ),
)
