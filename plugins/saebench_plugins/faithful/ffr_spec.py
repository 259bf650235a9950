"""Spec of the FFR metric. Loads no torch."""

from __future__ import annotations

from saebench.api import CellMetricSpec, Column, MetricInfo

_STREAMS = {"random": "uniform random token ids", "text": "held-out text", "self": "the model's own samples"}

_HINTS = {
    "random": "fake features: latents over the threshold on random tokens",
    "text": "latents over the threshold on held-out text",
    "self": "latents over the threshold on the model's own samples",
}


def _column(kind: str, place: int) -> Column:
    return Column(
        kind, "fake feature ratio", f"FFR {kind}", _HINTS[kind], decimals=1, percent=True, place=place, chart="dots"
    )


FFR = tuple(
    MetricInfo(id, "fraction", "lower", "faithfulness", text, column=column)
    for place, (kind, stream) in enumerate(_STREAMS.items())
    for id, column, text in (
        (
            f"ffr-{kind}",
            _column(kind, place),
            "Fake feature ratio (our reconstruction): fraction of latents that fire on more than 10 % of tokens of "
            f"{stream}.",
        ),
        (f"ffr-{kind}-alive", None, f"ffr-{kind} among latents that fire at all on held-out text."),
    )
)

METRICS: tuple[CellMetricSpec, ...] = (
    CellMetricSpec(
        name="ffr",
        version="2",
        provides=FFR,
        make="saebench_plugins.faithful.ffr:make",
        streams=("random-tokens", "density", "self-sampled"),
        fields=("codes",),
        core=True,
    ),
)
