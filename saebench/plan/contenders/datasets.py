"""The suite's datasets: options parsed and checked, recipes digested before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saebench.api.errors import PluginError, SuiteError
from saebench.api.specs import DatasetSpec, Findings, Site
from saebench.api.splits import Split
from saebench.base.canonical import digest
from saebench.base.near import hint
from saebench.base.text import published
from saebench.cells.cell import DatasetUse, ModelUse
from saebench.cells.packing import POLICIES
from saebench.config import Problems, Suite, as_json, parse_options
from saebench.config.problems import Path
from saebench.host import Catalog, Registered
from saebench.plan.contenders.plugin_calls import ask

if TYPE_CHECKING:
    from saebench.lm.facts import ModelFacts


@dataclass(frozen=True, eq=False)
class DatasetPlan:
    """A dataset of the suite with its options as the plugin reads them.

    `faults` are places in the suite, each with what is wrong with the material there: entries that need the dataset are
    refused.
    """

    name: str
    registered: Registered[DatasetSpec]
    options: Any
    faults: tuple[tuple[Path, str], ...] = ()

    @property
    def kind(self) -> str:
        """text, generated, activations or synthetic."""
        return self.registered.spec.kind

    @property
    def on_model(self) -> bool:
        """True when its activations come from a language model."""
        return self.kind in ("text", "generated")

    @property
    def made_tokens(self) -> int:
        """Tokens that making it costs, known before it is made: the `tokens` option of a generated dataset."""
        return int(getattr(self.options, "tokens", 0) or 0) if self.kind == "generated" else 0

    def site(self) -> Site:
        """Where an entry on it reads and writes; for activations and synthetic data."""
        if self.registered.spec.site is None:
            raise PluginError(
                f"dataset plugin '{self.registered.spec.name}' of {self.registered.distribution}: kind {self.kind} "
                "needs `site`."
            )
        return ask(self.registered, "site", self.registered.spec.site, self.options)


class DatasetBook:
    """All datasets of a suite. One whose options have problems is left out, after its problems were added."""

    def __init__(self, suite: Suite, catalog: Catalog, problems: Problems) -> None:
        self._suite, self._problems = suite, problems
        self._plans: dict[str, DatasetPlan] = {}
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._findings: dict[str, Findings] = {}
        self._maker: ModelUse | None = None
        self._uses: dict[tuple[str, str | None, int | None], DatasetUse] = {}
        for name, config in suite.config.datasets.items():
            self._read(name, config.plugin, config.options, catalog)
        for name, plan in list(self._plans.items()):
            self._check_bases(name, plan, (name,))

    def get(self, name: str) -> DatasetPlan | None:
        """The dataset, or None where its options have problems."""
        return self._plans.get(name)

    def make_with(self, model: ModelUse) -> None:
        """Names the language model that makes datasets of vectors which need one."""
        self._maker = model

    def lacks_model(self, name: str) -> str | None:
        """Why a dataset of vectors that needs a language model has none; None for all others."""
        plan = self._plans[name]
        if plan.on_model or not plan.registered.spec.uses_model or self._maker is not None:
            return None
        n = len(self._suite.config.models)
        found = (
            "the suite has none. Add one under `models`"
            if n == 0
            else f"the suite has {n}, and nothing says which. Keep one"
        )
        return f"{name!r} (plugin {plan.registered.spec.name}) needs a language model to make its vectors, but {found}."

    def bases(self, name: str) -> tuple[str, ...]:
        """Names of the datasets that it reads."""
        plan = self._plans[name]
        return tuple(ask(plan.registered, "bases", plan.registered.spec.bases, plan.options))

    def faults(self, name: str) -> list[tuple[Path, str]]:
        """What is wrong with its material, and with that of the datasets that it reads."""
        return [*self._plans[name].faults, *(fault for base in self.bases(name) for fault in self.faults(base))]

    def idle_faults(self, read: Collection[str]) -> list[tuple[Path, str]]:
        """What is wrong with the material of datasets of which none of these is made: nothing is refused for it."""
        needed, more = set(read), list(read)
        while more:
            more = [base for name in more for base in self.bases(name) if base not in needed]
            needed.update(more)
        return [fault for name, plan in self._plans.items() if name not in needed for fault in plan.faults]

    def findings(self, name: str) -> Findings:
        """What a short inspection of its material shows."""
        if name not in self._findings:
            plan = self._plans[name]
            self._findings[name] = ask(plan.registered, "inspect", plan.registered.spec.inspect, plan.options)
        return self._findings[name]

    def empty(self, name: str, split: Split) -> str | None:
        """Why a part of it, or of a dataset that it reads, is empty; None where it is not."""
        reasons = (self.empty(base, split) for base in self.bases(name))
        return self.findings(name).empty.get(split) or next(filter(None, reasons), None)

    def made_tokens(self, name: str) -> int:
        """Tokens that making it and all it reads costs."""
        return self._plans[name].made_tokens + sum(self.made_tokens(base) for base in self.bases(name))

    def use(self, name: str, model: ModelFacts | None, context: int | None) -> DatasetUse:
        """The dataset as cells use it, with its recipe digest.

        The recipe is what decides the content: plugin and version, options, what the plugin adds (file manifest, source
        revision), recipes of the datasets it reads, how its tokens are packed, and, where it depends on them, the
        language model and the context length. The data seed is the cell's.
        """
        plan = self._plans[name]
        spec = plan.registered.spec
        on_model = model is not None and (spec.uses_model or spec.kind == "generated")
        maker = self._maker if spec.uses_model and not plan.on_model else None
        key = (name, model.digest if model is not None else None, context)
        if key in self._uses:
            return self._uses[key]
        if name not in self._facts:
            self._facts[name] = ask(plan.registered, "recipe", spec.recipe, plan.options)
        options = as_json(plan.options)
        recipe = {
            "plugin": spec.name,
            "version": spec.version,
            "options": published(options),  # where a file is does not matter; what it holds is in the plugin's recipe
            "recipe": self._facts[name],
            "bases": [self.use(base, model, context).recipe for base in self.bases(name)],
            "model": maker.digest if maker is not None else model.digest if on_model and model is not None else None,
            "context": maker.context
            if maker is not None
            else context
            if on_model and spec.kind == "generated"
            else None,
            "tokens": POLICIES.get(spec.kind) if model is not None else None,
        }
        try:
            code = digest(recipe)
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"dataset plugin '{spec.name}' of {plan.registered.distribution}: options and recipe must be plain "
                f"JSON ({error})."
            ) from error
        holds = self._holds(name, model)
        use = DatasetUse(name, spec.name, spec.version, spec.kind, options, code, maker, holds, self._keeps(name))
        self._uses[key] = use
        return use

    def _keeps(self, name: str) -> int:
        return self.findings(name).keeps + sum(map(self._keeps, self.bases(name)))

    def _holds(self, name: str, model: ModelFacts | None) -> dict[str, int]:
        """See `DatasetUse.holds`. Text that is taken from other text is at most all of that."""
        found = self.findings(name)
        if found.rows:
            return {str(part): n for part, n in found.rows.items()}
        if model is None or self._plans[name].kind != "text":
            return {}
        bases = self.bases(name)
        if not found.sample and len(bases) == 1:
            return self._holds(bases[0], model)
        tokens = model.tokens_in(found.sample) if found.sample else None
        return {part: n * tokens // len(found.sample) for part, n in found.characters.items()} if tokens else {}

    def _read(self, name: str, plugin: str, values: Mapping[str, Any], catalog: Catalog) -> None:
        path = ("datasets", name)
        try:
            registered = catalog.dataset(plugin)
        except SuiteError as error:
            self._problems.take(error, (*path, "plugin"))
            return
        except PluginError as error:
            raise PluginError(f"{self._suite.where(*path, 'plugin')} datasets.{name}.plugin: {error}") from error
        try:
            options: Any = parse_options(
                registered.spec.options, values, lambda key: self._suite.where(*path, key), f"datasets.{name}"
            )
        except SuiteError as error:
            self._problems.take(error)
            return
        try:
            found = list(ask(registered, "check", registered.spec.check, options))
        except SuiteError as error:
            self._problems.take(error, path)
            return
        faults: list[tuple[Path, str]] = []
        for problem in found:
            at = (*path, *problem.key.split(".")) if problem.key else path
            if problem.data:
                faults.append((at, problem.message))
            else:
                self._problems.add(at, problem.message)
        if len(faults) == len(found):
            self._plans[name] = DatasetPlan(name, registered, options, tuple(faults))

    def _check_bases(self, name: str, plan: DatasetPlan, chain: tuple[str, ...]) -> None:
        for base in ask(plan.registered, "bases", plan.registered.spec.bases, plan.options):
            path = ("datasets", name, "base")
            if base not in self._suite.config.datasets:
                self._problems.add(
                    path,
                    f"no dataset named {base!r}. "
                    f"{hint(base, [other for other in self._suite.config.datasets if other != name])}",
                )
                self._plans.pop(name, None)
            elif base in chain:
                self._problems.add(
                    path, f"goes in a circle: {' <- '.join((*chain, base))}. Let one of them read nothing."
                )
                self._plans.pop(name, None)
            elif base not in self._plans:
                self._plans.pop(name, None)  # the base's own problems are reported already
            elif self._plans[base].kind != "text":
                self._problems.add(
                    path,
                    f"{base!r} is of kind {self._plans[base].kind}; only text can be read from. Name a text dataset.",
                )
                self._plans.pop(name, None)
            else:
                self._check_bases(base, self._plans[base], (*chain, base))
