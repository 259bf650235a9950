"""Spec of the FFR metric. Loads no torch."""

from __future__ import annotations

from saebench.api import CellMetricSpec, Column, MetricInfo

_STREAMS = {"random": "uniform random token ids", "text": "held-out text", "self": "the model's own samples"}

_HINTS = {
    "random": "fake features: latents over the threshold on random tokens; compare only at equal L0 and d_sae",
    "text": "latents over the threshold on held-out text",
    "self": "latents over the threshold on the model's own samples",
    "contrast": "latents over it on random tokens and not on the model's own samples",
}
THRESHOLD = 0.10
_OVER = f"fire on more than {THRESHOLD:.0%} of tokens of".replace("%", " %")


def _column(kind: str, place: int) -> Column:
    return Column(
        kind, "fake feature ratio", f"FFR {kind}", _HINTS[kind], decimals=1, percent=True, place=place, chart="dots"
    )


def _info(id: str, text: str, column: Column | None = None) -> MetricInfo:
    return MetricInfo(id, "fraction", "lower", "faithfulness", text, column=column)


def _stream(kind: str, stream: str, place: int) -> tuple[MetricInfo, ...]:
    id = f"ffr-{kind}"
    text = f"Fake feature ratio (our reconstruction): fraction of latents that {_OVER} {stream}."
    return (
        _info(id, text, _column(kind, place)),
        _info(f"{id}-alive", f"{id} among latents that fire at all on held-out text."),
        MetricInfo(f"{id}-l0", "latents", "neutral", "faithfulness", f"Active latents a token of {stream}."),
        MetricInfo(
            f"{id}-of-ceiling", "fraction", "neutral", "faithfulness",
            f"{id} over the most it can be at this L0, min(1, L0 / ({THRESHOLD:g} d_sae)): densities sum to L0.",
        ),
    )  # fmt: skip


_CONTRAST = "ffr-contrast"
FFR = (
    *(info for place, (kind, stream) in enumerate(_STREAMS.items()) for info in _stream(kind, stream, place)),
    _info(
        _CONTRAST,
        f"Fraction of latents that {_OVER} {_STREAMS['random']}, and not of {_STREAMS['self']} (our reconstruction).",
        _column("contrast", len(_STREAMS)),
    ),
    _info(f"{_CONTRAST}-alive", f"{_CONTRAST} among latents that fire at all on held-out text."),
)

METRICS: tuple[CellMetricSpec, ...] = (
    CellMetricSpec(
        name="ffr",
        version="3",
        provides=FFR,
        make="saebench_plugins.faithful.ffr:make",
        streams=("random-tokens", "density", "self-sampled"),
        fields=("codes",),
        core=True,
    ),
)
