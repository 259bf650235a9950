"""What makers of data are handed: the run's datasets, plugins, device, language models and stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from saebench import console
from saebench.activations.sources.plugin_cache import PluginCache
from saebench.activations.sources.split_text import SplitText
from saebench.activations.store import ActivationStore
from saebench.activations.tokens import token_policy
from saebench.api.errors import Damaged, SuiteError
from saebench.api.specs import resolve
from saebench.artifacts import digest, remove
from saebench.cells.cell import DATA_VERSION, DatasetUse, ModelUse
from saebench.config import parse_options
from saebench.lm.model import LanguageModel

if TYPE_CHECKING:
    from saebench.activations.token_store import TokenStore
    from saebench.artifacts import RunFolder
    from saebench.host import Catalog

Store = TypeVar("Store", "ActivationStore", "TokenStore")


class Meter:
    """Counts what making a dataset costs (`saebench.api.CostMeter`).

    Attributes:
        kept_s: Seconds that an earlier making took of what was found in the cache.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.flops = 0
        self.kept_s = 0.0

    def add(self, *, tokens: int = 0, flops: int = 0) -> None:
        """Adds tokens made or read and floating-point operations."""
        self.tokens += int(tokens)
        self.flops += int(flops)

    def to_json(self) -> dict[str, int]:
        """`{"tokens", "flops"}`."""
        return {"tokens": self.tokens, "flops": self.flops}


class Context:
    """Opens the datasets, models and stores of one run.

    Args:
        datasets: Every dataset of the suite, by name.
        run: Run folder with stores and caches.
        catalog: Installed plugins.
        device: Where models run and batches are handed out.
        say: Prints one line: damaged data that is made again, or a doubt about the data.
    """

    def __init__(
        self,
        datasets: Mapping[str, DatasetUse],
        run: RunFolder,
        catalog: Catalog,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.datasets, self.run, self.catalog, self.device, self.say = datasets, run, catalog, device, say
        self._models: dict[str, LanguageModel] = {}
        self._proven: set[Path] = set()

    def release(self) -> None:
        """Drops the language models from memory."""
        self._models.clear()

    # --- models and datasets ------------------------------------------------------------------------------------------

    def model(self, use: ModelUse) -> LanguageModel:
        """The language model, loaded once.

        Raises:
            SuiteError: It is not the model that was planned with.
        """
        if use.digest not in self._models:
            with console.phase("loading", use.id):
                loaded = LanguageModel.of(use, self.device, self.catalog)
            if loaded.facts.digest != use.digest:
                raise SuiteError(
                    f"model '{use.id}' changed since the plan was made (digest {loaded.facts.digest[:12]}, "
                    f"planned {use.digest[:12]}). Plan again: run with --fresh."
                )
            self._models[use.digest] = loaded
        return self._models[use.digest]

    def open(
        self, use: DatasetUse, *, model: Callable[[], LanguageModel] | None, seed: int, length: int, meter: Meter
    ) -> Any:
        """What the plugin's `open` returns; text as `SplitText`.

        Raises:
            SuiteError: Options that do not fit, or material that the plugin cannot use.
        """
        spec = self.catalog.dataset(use.plugin).spec
        options: Any = parse_options(spec.options, use.options, lambda _key: "plan:", f"datasets.{use.name}")
        with console.phase("reading", use.name):
            opened = resolve(spec.open)(options, _PluginContext(self, use, model, seed, length, meter))
        return SplitText(opened, use.name) if spec.kind == "text" else opened

    def texts(self, use: DatasetUse, model: ModelUse, seed: int, meter: Meter) -> Any:
        """A text or generated dataset, as its plugin opens it."""
        return self.open(use, model=lambda: self.model(model), seed=seed, length=model.context, meter=meter)

    def vectors(self, use: DatasetUse, seed: int, meter: Meter) -> Any:
        """A dataset of vectors, as its plugin opens it."""
        maker = use.model
        model = (lambda: self.model(maker)) if maker is not None else None
        return self.open(use, model=model, seed=seed, length=maker.context if maker is not None else 0, meter=meter)

    # --- stores -------------------------------------------------------------------------------------------------------

    def key(self, use: DatasetUse, model: ModelUse | None, **more: Any) -> dict[str, Any]:
        """All that decides a store's content."""
        key: dict[str, Any] = {"data_version": DATA_VERSION, "recipe": use.recipe, "dataset": use.name, **more}
        if model is not None:
            key |= {
                "model": model.digest,
                "hookpoint": model.hookpoint,
                "context": model.context,
                "policy": self.policy(use, model),
            }
        return key

    def policy(self, use: DatasetUse, model: ModelUse) -> dict[str, Any]:
        """How tokens of this dataset are made for this model."""
        lm = self.model(model)
        return token_policy(
            use.kind, context=model.context, bos_id=lm.bos_id, eos_id=lm.eos_id, special_ids=lm.special_ids
        )

    def store(self, key: Mapping[str, Any], build: Callable[[Path], None]) -> ActivationStore:
        """The store of this key. Where there is none, or a damaged one, `build` writes it into the given folder."""
        folder = self.run.activations(digest(dict(key)))
        store = self.intact(folder, lambda checked: ActivationStore.open(folder, key, checked=checked))
        if store is None:
            build(folder)
            store = ActivationStore.open(folder, key, checked=True)
            assert store is not None
        return store

    def intact(self, folder: Path, find: Callable[[bool], Store | None]) -> Store | None:
        """The store that an earlier run left in `folder`; None where there is none. A damaged one is removed.

        `find(checked)` opens it; with `checked`, this run has compared all of it with its digests already.
        """
        try:
            store = find(folder in self._proven)
        except Damaged as error:
            self.say(f"{error.found}. The store is filled again")
            self._proven.discard(folder)
            remove(folder)  # the new one may need its space on the disk
            return None
        if store is not None and store.proven:
            self._proven.add(folder)
        return store


class _PluginContext:
    """`saebench.api.DatasetContext`."""

    def __init__(
        self,
        context: Context,
        use: DatasetUse,
        model: Callable[[], LanguageModel] | None,
        seed: int,
        length: int,
        meter: Meter,
    ) -> None:
        self._context, self._use, self._model = context, use, model
        self.seed, self.length, self.meter = seed, length, meter

    @property
    def model(self) -> LanguageModel:
        """The language model of the cohort."""
        if self._model is None:
            raise SuiteError(
                f"dataset '{self._use.name}' (plugin {self._use.plugin}) asks for a language model "
                "and does not say so. Set `uses_model=True` in its DatasetSpec."
            )
        return self._model()

    def dataset(self, name: str) -> SplitText:
        """Another text dataset of the suite."""
        use = self._context.datasets.get(name)
        if use is None:
            raise SuiteError(
                f"dataset '{self._use.name}' reads '{name}', which the suite does not have. "
                f"Known: {', '.join(sorted(self._context.datasets))}."
            )
        if use.kind != "text":
            raise SuiteError(
                f"dataset '{self._use.name}' reads '{name}', which is of kind {use.kind}; only text can be read from."
            )
        base: SplitText = self._context.open(
            use, model=self._model, seed=self.seed, length=self.length, meter=self.meter
        )
        return base

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """See `saebench.api.DatasetContext`."""
        recipe = self._use.recipe
        cache = PluginCache(self._context.run.cache(recipe), recipe, self._context.say)
        content = cache(name, make)
        self.meter.kept_s += cache.kept_s
        return content

    def progress(self, total: int, label: str) -> console.Phase:
        """A phase with a bar on standard error."""
        kind = "sampling" if self._use.kind == "generated" else "reading"
        return console.phase(kind, f"{self._use.name}: {label}", total=total)
