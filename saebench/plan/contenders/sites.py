"""Where SAEs of a suite read: hookpoints of its models, or a dataset of activations itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saebench.api.errors import SuiteError
from saebench.api.specs import Site
from saebench.cells.cell import ModelUse
from saebench.cells.load import LoadSettings
from saebench.config import ModelConfig, Problems, Suite
from saebench.plan.contenders.datasets import DatasetPlan

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook
    from saebench.lm.facts import ModelFacts


@dataclass(frozen=True, eq=False)
class SiteUse:
    """One place where cells read and write.

    Attributes:
        site: Sizes and names, as plugins see it.
        model: None for a dataset of activations.
        facts: What is known of the model; None without one.
        key: Equal for equal places.
    """

    site: Site
    model: ModelUse | None
    facts: ModelFacts | None
    key: tuple[str, ...]

    @property
    def context(self) -> int | None:
        """Tokens a sequence, or None without a model."""
        return self.model.context if self.model is not None else None


def model_sites(suite: Suite, book: ModelBook, problems: Problems) -> list[SiteUse]:
    """Every hookpoint of every model; problems (no such model, hookpoint or context) are added with file and line."""
    sites = []
    for i, model in enumerate(suite.config.models):
        try:
            facts = book.model(model.id, model.revision, load_settings(model))
            facts.check_loading(model.load.allow_unused)
        except SuiteError as error:
            problems.take(error, ("models", i, "id"))
            continue
        limit = facts.context_limit
        if limit is not None and model.context > limit:
            problems.add(
                ("models", i, "context"),
                f"got {model.context} but {model.id} reads at most {limit} tokens. Use context <= {limit}.",
            )
        seen: dict[str, str] = {}
        for j, name in enumerate(model.hookpoints):
            path = ("models", i, "hookpoints", j)
            try:
                hook = facts.hookpoint(name)
                book.prove(model.id, model.revision, hook.path, model.load.allow_unused, load_settings(model))
            except SuiteError as error:
                problems.take(error, path)
                continue
            if hook.path in seen:
                problems.add(path, f"{name!r} is the same place as {seen[hook.path]!r} ({hook.path}). Keep one.")
                continue
            seen[hook.path] = name
            key = ("model", facts.digest, hook.path, str(model.context))
            site = Site(hook.d, hook.d, hook.path, hook.path)
            sites.append(SiteUse(site, _model_use(model, facts, hook.path, name), facts, key))
    return sites


def lone_model(suite: Suite, book: ModelBook) -> ModelUse | None:
    """The suite's one language model; None where there are none or several, or it cannot be used."""
    if len(suite.config.models) != 1:
        return None
    (model,) = suite.config.models
    try:
        facts = book.model(model.id, model.revision, load_settings(model))
        facts.check_loading(model.load.allow_unused)
    except SuiteError:
        return None  # `model_sites` reports it
    return _model_use(model, facts, "", "")


def load_settings(model: ModelConfig) -> LoadSettings:
    """How a suite wants a model's weights loaded."""
    load = model.load
    return LoadSettings(model.dtype, model.attention, load.quantisation, load.trust_remote_code, model.device_map)


def _model_use(model: ModelConfig, facts: ModelFacts, hookpoint: str, name: str) -> ModelUse:
    return ModelUse(
        id=model.id,
        revision=model.revision,
        digest=facts.digest,
        hookpoint=hookpoint,
        hookpoint_name=name,
        context=model.context,
        allow_unused=tuple(model.load.allow_unused),
        notes=facts.notes,
        load=load_settings(model),
        is_here=not facts.lacks and facts.not_usable is None,
    )


def dataset_site(dataset: DatasetPlan) -> SiteUse:
    """The site of an activations or synthetic dataset: the dataset itself."""
    return SiteUse(dataset.site(), None, None, ("dataset", dataset.name))
