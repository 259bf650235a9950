"""Opening a dataset plugin: its options, and the context it lazily takes what it needs from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.activations.sources.kept import Kept
from saebench.activations.sources.split_text import SplitText
from saebench.api.errors import SuiteError
from saebench.api.specs import resolve
from saebench.config import parse_options

if TYPE_CHECKING:
    from saebench.artifacts import RunFolder
    from saebench.cells.cell import DatasetUse
    from saebench.host import Catalog
    from saebench.lm.model import LanguageModel


class Meter:
    """Counts what making a dataset costs (`saebench.api.CostMeter`)."""

    def __init__(self) -> None:
        self.tokens = 0
        self.flops = 0

    def add(self, *, tokens: int = 0, flops: int = 0) -> None:
        """Adds tokens made or read and floating-point operations."""
        self.tokens += int(tokens)
        self.flops += int(flops)

    def to_json(self) -> dict[str, int]:
        """`{"tokens", "flops"}`."""
        return {"tokens": self.tokens, "flops": self.flops}


class Opener:
    """Opens datasets of a suite by name, each with a context of its own.

    Args:
        datasets: Every dataset of the suite, by name.
        run: Where caches stand.
        catalog: Where plugins are found.
        say: Hears in one line what was damaged and is made again.
    """

    def __init__(
        self, datasets: Mapping[str, DatasetUse], run: RunFolder, catalog: Catalog, say: Callable[[str], None]
    ) -> None:
        self.datasets, self.run, self.catalog, self.say = datasets, run, catalog, say

    def open(
        self, use: DatasetUse, *, model: Callable[[], LanguageModel] | None, seed: int, length: int, meter: Meter
    ) -> Any:
        """What the plugin's `open` returns; text as `SplitText`.

        Raises:
            SuiteError: Options that do not fit, or material the plugin cannot use.
        """
        spec = self.catalog.dataset(use.plugin).spec
        options: Any = parse_options(spec.options, use.options, lambda _key: "plan:", f"datasets.{use.name}")
        with console.phase("reading", use.name):
            opened = resolve(spec.open)(options, _Context(self, use, model, seed, length, meter))
        return SplitText(opened, use.name) if spec.kind == "text" else opened


class _Context:
    """`saebench.api.DatasetContext`."""

    def __init__(
        self,
        opener: Opener,
        use: DatasetUse,
        model: Callable[[], LanguageModel] | None,
        seed: int,
        length: int,
        meter: Meter,
    ) -> None:
        self._opener, self._use, self._model = opener, use, model
        self.seed, self.length, self.meter = seed, length, meter

    @property
    def model(self) -> LanguageModel:
        """The language model of the cohort."""
        if self._model is None:
            raise SuiteError(
                f"dataset '{self._use.name}' (plugin {self._use.plugin}) asks for a language model and does not say so. Set `uses_model=True` in its DatasetSpec."
            )
        return self._model()

    def dataset(self, name: str) -> SplitText:
        """Another text dataset of the suite."""
        use = self._opener.datasets.get(name)
        if use is None:
            raise SuiteError(
                f"dataset '{self._use.name}' reads '{name}', which the suite does not have. Known: {', '.join(sorted(self._opener.datasets))}."
            )
        if use.kind != "text":
            raise SuiteError(
                f"dataset '{self._use.name}' reads '{name}', which is of kind {use.kind}; only text can be read from."
            )
        base: SplitText = self._opener.open(
            use, model=self._model, seed=self.seed, length=self.length, meter=self.meter
        )
        return base

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """See `saebench.api.DatasetContext`."""
        recipe = self._use.recipe
        return Kept(self._opener.run.cache(recipe), recipe, self._opener.say)(name, make)

    def progress(self, total: int, label: str) -> console.Phase:
        """A phase with a bar on standard error."""
        kind = "sampling" if self._use.kind == "generated" else "reading"
        return console.phase(kind, f"{self._use.name}: {label}", total=total)
