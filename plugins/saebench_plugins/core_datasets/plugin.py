"""The datasets that come with saebench: their names, options, and checks before anything is built."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from saebench.api import MOST_MEMORY_BYTES, DatasetSpec, Findings, Problem, Site, hookimpl

_HERE = "saebench_plugins.core_datasets"
Kind = Literal["text", "generated", "activations", "synthetic"]


@dataclass(frozen=True)
class DocsOptions:
    """The embedded corpus has no options."""


@dataclass(frozen=True)
class LocalOptions:
    """Somebody's own text.

    Attributes:
        path: A txt, jsonl, jsonl.gz or parquet file, or a folder of such files.
        text_column: Key (jsonl) or column (parquet) that holds the text.
    """

    path: str
    text_column: str = "text"


@dataclass(frozen=True)
class HubOptions:
    """A text dataset in the hub's layout.

    Attributes:
        id: Hub id, or a local folder in the hub's layout. One of `id` and `preset`.
        preset: A name in place of id, config and text column.
        config: The hub dataset's configuration.
        split: The hub dataset's split; ours (one document in five held out) is made inside it.
        revision: Commit, tag or branch. Give a commit for a run that can be repeated.
        text_column: Column with the text, or with a conversation.
        streaming: Read over the network as needed, or download everything first.
        max_documents: Read no more than so many.
    """

    id: str | None = None
    preset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    text_column: str | None = None
    streaming: bool = True
    max_documents: int | None = None


@dataclass(frozen=True)
class SubdomainOptions:
    """Documents of another dataset near query phrases.

    Attributes:
        base: Name of a text dataset of the suite.
        queries: Phrases; a document is as near as the nearest phrase.
        retriever: `bm25` (words) or `dense` (the language model's mean hidden state).
        top: A whole number: so many training documents. A fraction (0 < top <= 1): that share.
    """

    base: str
    queries: tuple[str, ...]
    retriever: Literal["bm25", "dense"] = "bm25"
    top: int | float = 0.1


@dataclass(frozen=True)
class ActivationsOptions:
    """A matrix `[n, d]` of anybody's vectors.

    Attributes:
        path: A npy or safetensors file.
        key: Tensor of a safetensors file; may be left out when there is one.
    """

    path: str
    key: str | None = None


@dataclass(frozen=True)
class SyntheticOptions:
    """Sparse features in superposition.

    Attributes:
        d_in: Width.
        n_features: Size of the true dictionary.
        active: Mean number of features that fire.
        zipf: Firing probability of the i-th feature falls as `i^-zipf`; 0 makes all equal.
        correlation: Of the Gaussians behind the features of one group of 8; 0 makes features fire independently.
        spread: Standard deviation of the logarithm of a firing feature's size; its median is 1.
        noise: Expected norm of the Gaussian noise, about.
        seed: Of the dictionary and of all draws.
    """

    d_in: int
    n_features: int
    active: float = 8.0
    zipf: float = 0.5
    correlation: float = 0.0
    spread: float = 0.25
    noise: float = 0.05
    seed: int = 0


def _late(module: str, name: str) -> Callable[[Any], Any]:
    """A function of options in a module that is loaded when it is first called."""
    return lambda options: getattr(import_module(f"{_HERE}.{module}"), name)(options)


def check_subdomain(options: SubdomainOptions) -> Sequence[Problem]:
    """Some query, and a share that can be taken."""
    problems = []
    if not options.queries or not all(any(map(str.isalnum, query)) for query in options.queries):
        problems.append(
            Problem("queries", 'every query needs at least one word. Write queries: ["sockets and network protocols"].')
        )
    share = isinstance(options.top, float)
    if options.top <= 0 or (share and options.top > 1):
        problems.append(
            Problem(
                "top", f"got {options.top}. Use a fraction (0 < top <= 1, such as 0.1) or a whole number of documents."
            )
        )
    return problems


def check_synthetic(options: SyntheticOptions) -> Sequence[Problem]:
    """Sizes and ranges."""
    rules = (
        ("d_in", options.d_in >= 1, "Use at least 1."),
        ("n_features", options.n_features >= 1, "Use at least 1."),
        (
            "active",
            0 < options.active <= options.n_features / 2,
            f"Use 0 < active <= n_features / 2 = {options.n_features / 2:g}.",
        ),
        ("zipf", options.zipf >= 0, "Use 0 or more."),
        ("correlation", 0 <= options.correlation < 1, "Use 0 <= correlation < 1."),
        ("spread", options.spread >= 0, "Use 0 or more."),
        ("noise", options.noise >= 0, "Use 0 or more."),
    )
    found = [Problem(key, f"got {getattr(options, key)}. {hint}") for key, good, hint in rules if not good]
    if not found and synthetic_bytes(options) > MOST_MEMORY_BYTES:
        found.append(
            Problem(
                "n_features",
                f"got {options.n_features:,} with d_in {options.d_in:,}: the dictionary needs about "
                f"{synthetic_bytes(options) // 10**12:,} TB of memory, more than any machine has. Use fewer.",
            )
        )
    return found


def inspect_synthetic(options: SyntheticOptions) -> Findings:
    """Whether the dictionary fits this machine; a plan may be made on a smaller one than a run."""
    lack = synthetic_lack(options)
    return Findings((f"synthetic: {lack}",)) if lack else Findings()


def synthetic_bytes(options: SyntheticOptions) -> int:
    """Memory for making the true dictionary: in float64, its unit rows, in float32; numbers of each feature."""
    return 20 * options.n_features * options.d_in + 40 * options.n_features


def synthetic_lack(options: SyntheticOptions) -> str | None:
    """That this machine has less memory than the dictionary takes; None where it has enough or does not tell."""
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    need = synthetic_bytes(options)
    if need <= there:
        return None
    return (
        f"a dictionary of {options.n_features:,} features in {options.d_in:,} dimensions needs about {need / 1e9:,.0f} "
        "GB of memory, "
        f"but this machine has {there / 1e9:,.0f} GB. Use fewer n_features."
    )


def _spec(
    name: str, module: str, version: str, options: type, kind: Kind, description: str, **more: Any
) -> DatasetSpec:
    return DatasetSpec(name, version, options, kind, f"{_HERE}.{module}:open_{name}", description=description, **more)


@hookimpl
def saebench_datasets() -> Sequence[DatasetSpec]:
    """docs, local, hub, subdomain, activations, synthetic."""
    return (
        _spec(
            "docs", "docs.dataset", "2", DocsOptions, "text",
            "Docstrings of the run-time dependencies, as prose; embedded, needs no network",
            recipe=_late("docs.dataset", "versions"), inspect=lambda _options: Findings(keeps=1_500_000),
        ),
        _spec(
            "local", "texts.local", "2", LocalOptions, "text",
            "Your own text: txt, jsonl, jsonl.gz, parquet, or a folder of them",
            check=_late("texts.survey", "problems"), inspect=_late("texts.survey", "findings"),
            recipe=_late("texts.files", "recipe"),
        ),
        _spec(
            "hub", "texts.hub", "2", HubOptions, "text",
            "A text dataset of the hub, streamed: TinyStories, OpenWebText, The Pile, FineWeb, LMSYS-Chat-1M or any id",
            check=_late("texts.presets", "problems"), inspect=_late("texts.hub", "findings"),
            recipe=_late("texts.presets", "recipe"),
        ),
        _spec(
            "subdomain", "subdomain", "1", SubdomainOptions, "text",
            "Documents of another dataset near query phrases (BM25 or dense), for specialised SAEs",
            check=check_subdomain, bases=lambda options: (options.base,), uses_model=True,
        ),
        _spec(
            "activations", "vectors.activations", "1", ActivationsOptions, "activations",
            "Your own matrix of vectors (npy or safetensors): any model, vision, neural recordings",
            check=_late("vectors.matrix_survey", "problems"), inspect=_late("vectors.matrix_survey", "findings"),
            recipe=_late("texts.files", "recipe"), site=_late("vectors.matrices", "site"),
        ),
        _spec(
            "synthetic", "vectors.synthetic", "1", SyntheticOptions, "synthetic",
            "Sparse features in superposition with a known dictionary",
            check=check_synthetic, inspect=inspect_synthetic,
            site=lambda options: Site(options.d_in, options.d_in, "synthetic", "synthetic"),
        ),
    )  # fmt: skip
