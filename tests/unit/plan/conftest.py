"""A small catalog of made-up plugins and a made-up language model, so that plans are tested without either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saebench.api import (
    ArchitectureSpec,
    CellMetricSpec,
    Cost,
    DatasetSpec,
    GroupMetricSpec,
    MetricInfo,
    Problem,
    Site,
    SuiteError,
    TrainDefaults,
)
from saebench.cells.plan import Plan
from saebench.config import load_suite
from saebench.host import Catalog, Registered
from saebench.plan import make_plan


@dataclass(frozen=True)
class TopK:
    d_sae: int
    k: int


@dataclass(frozen=True)
class Loose:
    d_sae: int
    l1: float = 0.1


@dataclass(frozen=True)
class Wrapper:
    tilt: float = 1.0


@dataclass(frozen=True)
class Width:
    d_sae: int


@dataclass(frozen=True)
class Docs:
    version: str = "1"


@dataclass(frozen=True)
class Local:
    path: str


@dataclass(frozen=True)
class Samples:
    tokens: int
    temperature: float = 1.0


@dataclass(frozen=True)
class Near:
    base: str
    queries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    d_in: int = 16
    n_features: int = 64


def _cost(d_in: int, d_sae: int, l0: float | None) -> Cost:
    return Cost(
        n_parameters=2 * d_in * d_sae,
        stored_bytes=8 * d_in * d_sae,
        train_flops_per_token=2 * d_in * d_sae,
        train_flops_per_active=10 * d_in,
        step_flops=1000,
        encode_flops_per_token=2 * d_in * d_sae,
        workspace_bytes_per_token=8 * d_sae,
        expected_l0=l0,
    )


def _check(config: TopK, site: Site) -> list[Problem]:
    return (
        [Problem("k", f"got {config.k} but d_sae is {config.d_sae}. Use k <= d_sae.")]
        if config.k > config.d_sae
        else []
    )


def _check_local(options: Local) -> list[Problem]:
    if options.path == "raises":
        raise SuiteError("the corpus is empty.")
    return (
        []
        if Path(options.path).exists()
        else [Problem("path", f"got {options.path!r} but there is no such file. Give one that exists.")]
    )


class Built(torch.nn.Module):
    """What is built without memory at plan time."""

    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__()
        self.d_in, self.d_sae = d_in, d_sae
        self.encode = self.decode = self.training_loss = self.forward


def _build(config: Any, *, site: Site, generator: Any, base: Any = None) -> Built:
    return Built(site.d_in, getattr(config, "d_sae", site.d_in))


def _topk(name: str, **more: Any) -> ArchitectureSpec:
    more = {
        "config": TopK,
        "check": _check,
        "cost": lambda config, site: _cost(site.d_in, config.d_sae, config.k),
    } | more
    return ArchitectureSpec(name=name, version="1", build=_build, **more)


ARCHITECTURES = [
    _topk("topk", parent="optional", train=TrainDefaults(lr=1e-3, reference_width=256)),
    _topk("fresh"),
    _topk(
        "loose",
        parent="optional",
        config=Loose,
        check=lambda config, site: (),
        cost=lambda config, site: _cost(site.d_in, config.d_sae, None),
    ),
    _topk(
        "ssae",
        config=Wrapper,
        check=lambda config, site: (),
        cost=lambda config, site, base: replace(base, step_flops=2000),
        wraps=True,
        parent="required",
        tags=frozenset({"tilted"}),
    ),
    _topk("control-random", parent="none", tags=frozenset({"control"})),
    _topk("control-pca", parent="none", tags=frozenset({"control"})),
    _topk(
        "control-permuted",
        parent="required",
        wraps=True,
        cost=lambda config, site, base: base,
        tags=frozenset({"control"}),
    ),
    _topk(
        "control-identity",
        config=Width,
        check=lambda config, site: (),
        cost=lambda config, site: _cost(site.d_in, site.d_in, site.d_in),
        parent="none",
        tags=frozenset({"control"}),
    ),
]
DATASETS = [
    DatasetSpec("docs", "1", Docs, "text", "none:none", recipe=lambda options: {"packages": ["a 1.0"]}),
    DatasetSpec("local", "1", Local, "text", "none:none", check=_check_local),
    DatasetSpec("faithful", "2", Samples, "generated", "none:none"),
    DatasetSpec("subdomain", "1", Near, "text", "none:none", bases=lambda options: (options.base,)),
    DatasetSpec(
        "synthetic",
        "1",
        Truth,
        "synthetic",
        "none:none",
        site=lambda options: Site(options.d_in, options.d_in, "synthetic", "synthetic"),
    ),
]


def _info(name: str) -> MetricInfo:
    return MetricInfo(name, "fraction", "lower", "reconstruction", "made up")


METRICS = [
    CellMetricSpec("reconstruction", "3", (_info("fvu"), _info("mse")), "none:none", ("eval", "loss"), core=True),
    CellMetricSpec(
        "sparsity", "1", (_info("l0"),), "none:none", ("eval", "density", "random-tokens", "self-sampled"), core=True
    ),
    CellMetricSpec("odd", "1", (_info("oddness"),), "none:none"),
    GroupMetricSpec("stability", "1", (_info("sfr"),), "none:none", core=True),
    GroupMetricSpec("across-data", "1", (_info("drift"),), "none:none", vary=frozenset({"dataset"}), core=True),
]


@dataclass(frozen=True)
class FakeHook:
    path: str
    name: str
    d: int


@dataclass(frozen=True)
class FakeModel:
    digest: str = "model-digest"
    context_limit: int | None = 256
    causal: bool = True
    n_parameters: int = 1000
    n_layers: int = 2
    d_model: int = 32
    vocab_size: int = 100
    cache_values: int = 128
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    not_usable: str | None = None

    def check_loading(self, allow_unused=(), /) -> None:
        left = set(self.unused) - set(allow_unused)
        if left:
            raise SuiteError(f"{sorted(left)[0]} is not used.")

    def tokens_in(self, text: str, /) -> int:
        return len(text) // 4

    def hookpoint(self, name: str, /) -> FakeHook:
        known = {"layers.0": "blocks.0", "layers.2": "blocks.2", "blocks.2": "blocks.2"}
        if name not in known:
            raise SuiteError(f"no hookpoint {name!r}. Did you mean 'layers.2'?")
        return FakeHook(known[name], name, 32)

    def forward_flops_per_token(self, hookpoint: str | None = None, /) -> int:
        return 1000 if hookpoint else 2000


@dataclass
class FakeFacts:
    models: dict[str, FakeModel] = field(
        default_factory=lambda: {"docs-lm": FakeModel(), "other": FakeModel("other-digest")}
    )
    inexact: tuple[str, ...] = ()

    def model(self, id: str, revision: str | None = None, load: Any = None, /) -> FakeModel:
        if id not in self.models:
            raise SuiteError(f"{id!r} is no model folder.")
        return self.models[id]

    def prove(self, id: str, revision: str | None, hookpoint: str, allow_unused=(), load: Any = None, /) -> None:
        if hookpoint in self.inexact:
            raise SuiteError(f"splicing is not exact at {hookpoint!r}.")


def fake_catalog() -> Catalog:
    def table(specs: list[Any]) -> dict[str, Any]:
        return {spec.name: Registered(spec, "fake-dist", "1.2", "fake") for spec in specs}

    return Catalog(architectures=table(ARCHITECTURES), datasets=table(DATASETS), metrics=table(METRICS))


HEADER = """\
schema: 1
name: s
models:
  - {id: docs-lm, hookpoints: [layers.2], context: 128}
datasets:
  docs: {plugin: docs}
  own: {plugin: faithful, tokens: 400}
  near: {plugin: subdomain, base: docs}
  truth: {plugin: synthetic}
"""
TAIL = "train: {batch: 64}\nbudget: {primary: tokens, tokens: 1_000}\n"
Planner = Callable[..., Plan]


@pytest.fixture
def planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """`planner(entries, tail=..., header=..., facts=..., catalog=...)` -> Plan. The file is `s.yaml`."""
    monkeypatch.chdir(tmp_path)

    def plan(
        entries: str,
        tail: str = "",
        *,
        header: str = HEADER,
        base: str = TAIL,
        facts: Any = None,
        catalog: Catalog | None = None,
        **more: Any,
    ) -> Plan:
        lines = "".join(f"  - {line.strip()}\n" for line in entries.strip().splitlines())
        Path("s.yaml").write_text(f"{header}entries:\n{lines}{base}{tail}")
        return make_plan(load_suite("s.yaml"), catalog or fake_catalog(), facts=facts or FakeFacts(), **more)

    return plan


@pytest.fixture
def refused(planner: Planner) -> Callable[..., list[str]]:
    """Like `planner`, for suites that are refused: the lines of the error."""

    def lines(*arguments: Any, **options: Any) -> list[str]:
        with pytest.raises(SuiteError) as caught:
            planner(*arguments, **options)
        return str(caught.value).splitlines()

    return lines


@pytest.fixture
def fakes() -> Any:
    """The made-up catalog and model, for tests that change them."""

    class Fakes:
        catalog = staticmethod(fake_catalog)
        Facts = FakeFacts
        Model = FakeModel
        header = HEADER
        tail = TAIL

    return Fakes
