"""Dataset or seed: agreement across both, as the harness drives it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from saebench.api import GroupMember, MetricResult
from saebench.api.specs import resolve
from saebench.matching import match
from saebench.metrics.catalogue import AGREEMENT
from saebench_plugins.core_metrics.plugin import METRICS

D_IN, D_SAE = 16, 20


class Sae(torch.nn.Module):
    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.d_in, self.d_sae = D_IN, len(rows)
        self.W_dec = torch.nn.Parameter(rows)
        self.W_enc = torch.nn.Parameter(rows.clone())


def rows(seed: int) -> torch.Tensor:
    return torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(seed))


def members(
    of_dataset: float, of_seed: float, seeds: int = 3, datasets: Sequence[str] = ("docs", "own")
) -> list[GroupMember]:
    """One dictionary, moved by each dataset and by each seed."""
    found = []
    for at, dataset in enumerate(datasets):
        for seed in range(seeds):
            moved = rows(0) + of_dataset * rows(100 + at) + of_seed * rows(200 + 10 * at + seed)
            dead = torch.arange(D_SAE) < 2
            facts = {"init_seed": seed, "dataset": dataset, "entry": f"topk {dataset}"}
            found.append(GroupMember(f"{dataset} s{seed}", Sae(moved), dead=dead, facts=facts))  # type: ignore[arg-type]
    return found


def measure(group: Sequence[GroupMember]) -> MetricResult:
    spec = next(spec for spec in METRICS if spec.name == "agreement")
    result: MetricResult = resolve(spec.make)().measure(group)
    assert list(result.values) == [info.id for info in AGREEMENT]
    json.dumps([value.to_json() for value in result.values.values()], allow_nan=False)
    json.dumps(dict(result.details), allow_nan=False)
    return result


def test_slow_reference_and_its_jackknife() -> None:
    group = members(0.5, 0.4)
    result = measure(group)

    def mean(kind: str, left: int | None = None) -> float:
        scores = []
        for i, a in enumerate(group):
            for b in group[i + 1 :]:
                same = a.facts["dataset"] == b.facts["dataset"], a.facts["init_seed"] == b.facts["init_seed"]
                if left in (a.facts["init_seed"], b.facts["init_seed"]):
                    continue
                if {"seeds": (True, False), "datasets": (False, True), "both": (False, False)}[kind] == same:
                    cosines = match(a.sae.W_dec[2:], b.sae.W_dec[2:]).cosines  # type: ignore[attr-defined]
                    scores.append((cosines > 0.7).sum() / (D_SAE - 2))
        return float(np.mean(scores))

    def error(of: list[float]) -> float:
        return float(np.sqrt(2 / 3 * np.sum((np.array(of) - np.mean(of)) ** 2)))

    for kind, n in (("seeds", 6), ("datasets", 3), ("both", 6)):
        value = result.values[f"sfr-alive-across-{kind}"]
        assert (value.value, value.n) == (pytest.approx(mean(kind)), n)
        assert value.stderr == pytest.approx(error([mean(kind, left) for left in range(3)]))
        assert result.details["agreement"][kind]["sfr-alive"]["value"] == value.value
    difference = result.values["dataset-over-seed"]
    assert difference.value == pytest.approx(mean("seeds") - mean("datasets"))
    assert difference.stderr == pytest.approx(
        error([mean("seeds", left) - mean("datasets", left) for left in range(3)])
    )
    assert difference.n == 9


def test_the_sign_says_which_matters_more() -> None:
    dataset = measure(members(1.5, 0.1)).values["dataset-over-seed"]
    seed = measure(members(0.1, 1.5)).values["dataset-over-seed"]
    assert dataset.value == pytest.approx(1, abs=0.4)
    # moved by each member's own noise alone, pairs across datasets agree as little as pairs across seeds
    assert seed.value == pytest.approx(0, abs=0.2)
    start = members(0.0, 0.0)
    for member in start:
        # what only the seed decides: the dataset changes nothing
        member.sae.W_dec.data = rows(300 + member.facts["init_seed"])  # type: ignore[attr-defined]
    assert measure(start).values["dataset-over-seed"].value == pytest.approx(-1, abs=0.1)


def test_details() -> None:
    group = members(0.5, 0.4, seeds=2, datasets=("docs", "own", "near"))
    details = measure(group).details
    pairs = details["agreement-pairs"]
    assert len(pairs) == 15
    assert [pair["kind"] for pair in pairs].count("seeds") == 3
    assert [pair["kind"] for pair in pairs].count("datasets") == 6
    assert [pair["kind"] for pair in pairs].count("both") == 6
    assert pairs[0] | {"values": None} == {
        "kind": "seeds", "a": "docs s0", "b": "docs s1", "signed": True, "d_sae": [20, 20], "alive": [18, 18],
        "coverage": pairs[0]["coverage"], "values": None, "gap": pairs[0]["gap"], "proven": True,
    }  # fmt: skip
    for kind in ("seeds", "datasets", "both"):
        of = details["agreement"][kind]
        assert set(of) == {
            f"{id}{form}"
            for id in ("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs")
            for form in ("", "-null", "-data-null", "-corrected")
        }
        assert all((entry["value"] is None) == id.endswith("-data-null") for id, entry in of.items())
        assert of["mmcs-data-null"]["reason"] == "the training data is not at hand"
        assert of["sfr-null"]["stderr"] is None
        assert of["mmcs"]["value"] == pytest.approx(
            np.mean([pair["values"]["mmcs"] for pair in pairs if pair["kind"] == kind])
        )
    # two seeds: without one of them no pair across seeds is left, but one across datasets is
    assert details["agreement"]["seeds"]["sfr"]["stderr"] is None
    assert details["agreement"]["datasets"]["sfr"]["stderr"] is not None


def test_nulls_say_why() -> None:
    one = measure(members(0.5, 0.4, datasets=("docs",)))
    assert all(value.reason == "needs two training datasets, there is docs" for value in one.values.values())
    lone = measure(members(0.5, 0.4, seeds=1))
    assert lone.values["sfr-across-seeds"].reason == "no two members differ so"
    assert lone.values["sfr-across-datasets"].value is not None
    assert lone.values["sfr-across-datasets"].stderr is None
    assert lone.values["dataset-over-seed"].reason == "no two members differ so"
    masks = members(0.5, 0.4)
    for at, member in enumerate(masks):
        member.sae.support_digest = lambda at=at: str(at)  # type: ignore[attr-defined, misc]
    assert all("frozen supports" in (value.reason or "") for value in measure(masks).values.values())
