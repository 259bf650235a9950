"""Each broken dataset and each broken metric fails one rule: the one that names its fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from saebench.api import (
    ActivationBatch,
    CellMetricSpec,
    DatasetSpec,
    Document,
    MetricInfo,
    MetricResult,
    MetricValue,
    Site,
    file_manifest,
)
from saebench.host import load_catalog
from saebench.testing import check_dataset, check_metric
from saebench.testing import datasets as dataset_rules
from saebench.testing import metrics as metric_rules


@dataclass(frozen=True)
class Options:
    path: str = ""


@dataclass
class Thawed:
    path: str = ""


class Rows:
    d_in, dictionary = 8, None
    held_out_seed = 10_000

    def __init__(self, options: Any, context: Any) -> None:
        self.readings = 0

    def n_tokens(self, split: str) -> int | None:
        return None

    def rows(self, split: str, seed: int, n: int) -> Any:
        more = self.held_out_seed if split == "held-out" else 0
        return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed + more))

    def batches(self, split: str, n_tokens: int, batch: int, seed: int) -> Iterator[ActivationBatch]:
        for x in self.rows(split, seed, n_tokens).split(batch):
            if len(x):
                yield ActivationBatch(x, x)

    def manifest(self) -> dict[str, Any]:
        return {}


class NoManifest(Rows):
    manifest = None  # type: ignore[assignment]


class Doubles(Rows):
    def rows(self, split: str, seed: int, n: int) -> Any:
        return super().rows(split, seed, n).double()


class GlobalRows(Rows):
    def rows(self, split: str, seed: int, n: int) -> Any:
        torch.rand(1)
        return super().rows(split, seed, n)


class Drifts(Rows):
    def rows(self, split: str, seed: int, n: int) -> Any:
        self.readings += 1
        return super().rows(split, seed, n) + self.readings


class Shared(Rows):
    """An iterator that was given up is gone on with."""

    left: Any = None

    def batches(self, split: str, n_tokens: int, batch: int, seed: int) -> Iterator[ActivationBatch]:
        if self.left is None:
            self.left = super().batches(split, n_tokens, batch, seed)
        yield from (item for item in self.left)
        self.left = None


class OneOrder(Rows):
    def rows(self, split: str, seed: int, n: int) -> Any:
        return super().rows(split, 0, n)


class Leaks(Rows):
    held_out_seed = 0


class NeverNothing(Rows):
    def rows(self, split: str, seed: int, n: int) -> Any:
        return super().rows(split, seed, max(1, n))


class Sinks(Rows):
    def rows(self, split: str, seed: int, n: int) -> Any:
        x = super().rows(split, seed, n)
        x[:1] *= 1e5
        return x


class Lines:
    def __init__(self, options: Any, context: Any) -> None:
        self.path = Path(options.path)

    def documents(self) -> Iterator[Document]:
        return (Document(line) for line in self.path.read_text().splitlines())

    def manifest(self) -> dict[str, Any]:
        return {"files": file_manifest([self.path], self.path)}


class Blank(Lines):
    def documents(self) -> Iterator[Document]:
        yield Document(" \n")
        yield from super().documents()


def vectors(kind: Any, options: type = Options, **more: Any) -> DatasetSpec:
    return DatasetSpec("rows", "1", options, "synthetic", kind, site=lambda o: Site(8, 8, "rows", "rows"), **more)


def text(kind: Any, **more: Any) -> DatasetSpec:
    return DatasetSpec("lines", "1", Options, "text", kind, **more)


def manifest(options: Any) -> dict[str, Any]:
    return Lines(options, None).manifest()


COUNT = iter(range(100))
DATASETS = {
    "the spec is well formed, and its options a frozen dataclass": [vectors(Rows, Thawed)],
    "the recipe is plain JSON and always the same": [
        vectors(Rows, recipe=lambda o: {"when": object()}),
        vectors(Rows, recipe=lambda o: {"when": next(COUNT)}),
    ],
    "what open returns has the methods of its kind": [vectors(NoManifest)],
    "items have the declared types, and as many as were asked for": [vectors(Doubles)],
    "random numbers come from a generator of its own": [vectors(GlobalRows)],
    "readings are equal": [vectors(Drifts)],
    "a reading that was given up changes nothing, nor does what was kept": [vectors(Shared)],
    "another seed gives another order": [vectors(OneOrder)],
    "no item is in both parts": [vectors(Leaks)],
    "where nothing is asked for, nothing is given": [vectors(NeverNothing)],
    "no item is empty or huge": [vectors(Sinks), text(Blank, recipe=manifest)],
    "the recipe covers the files that options name": [text(Lines)],
}


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {number} is a line that says so and has a number" for number in range(50)))
    return str(path)


def test_sound_datasets_pass(lines: str) -> None:
    for spec in (vectors(Rows), text(Lines, recipe=manifest)):
        options = Options(lines if spec.kind == "text" else "")
        assert [check.message for check in check_dataset(spec, options) if check.failed] == []


@pytest.mark.parametrize("rule", [rule.name for rule in dataset_rules.RULES])
def test_each_fault_of_a_dataset_is_found_by_its_rule_alone(rule: str, lines: str) -> None:
    for spec in DATASETS[rule]:
        options = spec.options(lines if spec.kind == "text" else "")
        assert [check.name for check in check_dataset(spec, options) if check.failed] == [rule]


INFO = MetricInfo("share", "fraction", "lower", "sparsity", "Share of tokens whose first latent is above one.")


class Share:
    """Of tokens on which the loudest latent is above one."""

    def __init__(self, context: Any) -> None:
        self.hits = self.n = 0.0

    def update(self, stream: str, scored: Any) -> None:
        self.hits += float((scored.codes.to_dense().max(1).values > 1).sum())
        self.n += scored.codes.n_rows

    def compute(self) -> MetricResult:
        return self.result(self.hits / self.n if self.n else None)

    def result(self, value: float | None) -> MetricResult:
        return MetricResult({INFO.id: MetricValue.of(INFO, value, int(self.n), reason="no token was read")})


class NothingGiven(Share):
    def compute(self) -> MetricResult:
        return MetricResult({})


class OtherUnit(Share):
    def compute(self) -> MetricResult:
        return MetricResult({INFO.id: MetricValue(0.5, "ratio", "lower", 1)})


class Draws(Share):
    def update(self, stream: str, scored: Any) -> None:
        torch.rand(1)
        super().update(stream, scored)


class Writes(Share):
    def update(self, stream: str, scored: Any) -> None:
        scored.codes.values.mul_(1.0001)
        super().update(stream, scored)


SEEN: list[float] = []


class OnTheModule(Share):
    def compute(self) -> MetricResult:
        SEEN.append(1)
        return self.result(1 / (1 + len(SEEN)))


class MeanOfMeans(Share):
    def update(self, stream: str, scored: Any) -> None:
        self.hits += float((scored.codes.to_dense().max(1).values > 1).any())
        self.n += 1


class LastToken(Share):
    def update(self, stream: str, scored: Any) -> None:
        self.hits, self.n = float(scored.batch.x[-1].sigmoid().mean()), 1

    def compute(self) -> MetricResult:
        return self.result(self.hits if self.n else None)


class Percent(Share):
    def compute(self) -> MetricResult:
        return self.result(100 * self.hits / self.n + 2 if self.n else None)


class Similarity(Share):
    def update(self, stream: str, scored: Any) -> None:
        self.hits += float(torch.cosine_similarity(scored.x_hat, scored.batch.x).sum())
        self.n += len(scored.x_hat)


class Divides(Share):
    def compute(self) -> MetricResult:
        return self.result(self.hits / self.n)


def metric(kind: Any, fields: Any = ("codes",), info: MetricInfo = INFO, version: str = "1") -> CellMetricSpec:
    return CellMetricSpec("share", version, (info,), kind, streams=("eval",), fields=fields)


METRICS = {
    "the spec is well formed, with a version and descriptions": [metric(Share, version="")],
    "every id is computed, in its unit and direction": [metric(NothingGiven), metric(OtherUnit)],
    "it draws from no global generator": [metric(Draws)],
    "it writes to nothing that it is shown": [metric(Writes)],
    "computations do not touch each other": [metric(OnTheModule)],
    "how tokens are cut into batches does not matter": [metric(MeanOfMeans)],
    "the order does not matter": [metric(LastToken)],
    "values are in the range of their unit": [metric(Percent)],
    "better is in the direction that is declared": [metric(Similarity, ("codes", "reconstruction"))],
    "what cannot be computed is null with a reason": [metric(Divides)],
}


@pytest.mark.parametrize("rule", [rule.name for rule in metric_rules.RULES])
def test_each_fault_of_a_metric_is_found_by_its_rule_alone(rule: str) -> None:
    for spec in METRICS[rule]:
        assert [check.name for check in check_metric(spec) if check.failed] == [rule]


def test_every_built_in_metric_passes() -> None:
    for name, registered in load_catalog().metrics.items():
        failed = [f"{check.name}: {check.message}" for check in check_metric(registered.spec) if check.failed]
        assert failed == [], name


def test_a_dataset_made_with_the_model_passes() -> None:
    spec = load_catalog().dataset("faithful").spec
    assert [check.message for check in check_dataset(spec, spec.options(tokens=3_000)) if check.failed] == []
