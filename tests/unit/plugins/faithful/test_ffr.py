"""FFR (our reconstruction)."""

from __future__ import annotations

import pytest
import torch

from saebench.api import (
    ActivationBatch,
    MetricContext,
    MetricResult,
    ScoredBatch,
    ScoringFacts,
    SparseCodes,
    TrainingFacts,
)
from saebench.api.specs import resolve
from saebench_plugins.faithful.ffr_spec import FFR, METRICS

ALL = {"random-tokens": None, "density": None, "self-sampled": None}


def codes(densities: list[float], n: int = 200) -> torch.Tensor:
    """Latent j fires on the first `densities[j] * n` tokens."""
    return (torch.arange(n)[:, None] < torch.tensor([round(density * n) for density in densities])).float()


def measure(streams: dict[str, torch.Tensor], absent: dict[str, str] | None = None, batch: int = 64) -> MetricResult:
    present = frozenset(ALL) - frozenset(absent or {})
    d_sae = next(iter(streams.values())).shape[1] if streams else 3
    facts = TrainingFacts(0, 0, 0), ScoringFacts()
    context = MetricContext(object(), 1, d_sae, frozenset(), present, absent or {}, *facts)  # type: ignore[arg-type]
    metric = resolve(METRICS[0].make)(context)
    for stream, z in streams.items():
        for piece in torch.arange(len(z)).split(batch):
            x = torch.zeros(len(piece), 1)
            metric.update(
                stream, ScoredBatch(ActivationBatch(x, x, sequence_ids=piece // 10), SparseCodes.from_dense(z[piece]))
            )
    result: MetricResult = metric.compute()
    return result


def test_by_hand() -> None:
    # latents: dense on nonsense; exactly at the threshold (not over it); dense everywhere; dead on text
    result = measure(
        {
            "random-tokens": codes([0.5, 0.1, 0.3, 0.2]),
            "density": codes([0.05, 0.05, 0.4, 0.0]),
            "self-sampled": codes([0.02, 0.15, 0.4, 0.0]),
        }
    )
    values = {id: value.value for id, value in result.values.items()}
    assert values == pytest.approx(
        {
            "ffr-random": 3 / 4, "ffr-random-alive": 2 / 3,
            "ffr-text": 1 / 4, "ffr-text-alive": 1 / 3,
            "ffr-self": 2 / 4, "ffr-self-alive": 2 / 3,
            # dense on random tokens and not on samples: the first, and the one that is dead on text
            "ffr-contrast": 2 / 4, "ffr-contrast-alive": 1 / 3,
            # L0 / (0.1 * 4) is over 1 on all streams: the ceiling is 1
            "ffr-random-l0": 1.1, "ffr-text-l0": 0.5, "ffr-self-l0": 0.57,
            "ffr-random-of-ceiling": 3 / 4, "ffr-text-of-ceiling": 1 / 4, "ffr-self-of-ceiling": 2 / 4,
        }
    )  # fmt: skip
    assert result.details["ffr-sweep"]["random"] == {"0.01": 1.0, "0.05": 1.0, "0.1": 0.75, "0.2": 0.5}
    assert result.details["ffr-sweep"]["text-alive"]["0.01"] == 1.0
    assert [info.id for info in FFR] == list(result.values)
    assert all(value.n == 200 and value.stderr is not None for value in result.values.values())


def test_the_ceiling_is_where_all_firings_lie_just_over_the_threshold() -> None:
    # 10 latents, L0 0.44: at most 4.4 of 10 can be over 0.1
    values = measure(
        {"random-tokens": codes([0.11] * 4 + [0.0] * 6)}, {"density": "no text", "self-sampled": "none"}
    ).values
    assert values["ffr-random-l0"].value == pytest.approx(0.44)
    assert values["ffr-random-of-ceiling"].value == pytest.approx(0.4 / 0.44)
    assert values["ffr-contrast"].reason == values["ffr-contrast-alive"].reason == "none"


def test_batch_size_does_not_matter() -> None:
    streams = {
        stream: (torch.rand(200, 30, generator=torch.Generator().manual_seed(1)) < 0.1).float() for stream in ALL
    }
    assert measure(streams, batch=7).values == measure(streams, batch=200).values


def test_negative_codes_fire() -> None:
    assert (
        measure({"random-tokens": -codes([0.5, 0.0])}, {"density": "no text", "self-sampled": "none"})
        .values["ffr-random"]
        .value
        == 0.5
    )


def test_absent_streams() -> None:
    absent = {"density": "no held-out text", "self-sampled": "no language model"}
    values = measure({"random-tokens": codes([0.5, 0.0])}, absent).values
    assert values["ffr-random"].value == 0.5
    assert values["ffr-random-alive"].reason == "which latents are alive is not known: no held-out text"
    assert values["ffr-text"].reason == values["ffr-text-alive"].reason == "no held-out text"
    assert values["ffr-self"].reason == "no language model"


def test_empty_and_silent_streams() -> None:
    assert all(value.reason == "no tokens were seen" for value in measure({}).values.values())
    silent = measure(dict.fromkeys(ALL, torch.zeros(20, 3))).values
    assert silent["ffr-text"].value == silent["ffr-text-l0"].value == silent["ffr-contrast"].value == 0
    assert silent["ffr-text-of-ceiling"].reason == "no latent ever fires"
    assert silent["ffr-text-alive"].reason == "no latent fires on held-out text"


def test_spec() -> None:
    assert METRICS[0].core
    assert METRICS[0].streams == ("random-tokens", "density", "self-sampled")
    assert all(info.family == "faithfulness" for info in METRICS[0].provides)
