"""Where cells get their activations from: training data of cohorts, evaluation data shared by all their cells.

One `Sources` serves a whole run. It loads each model once, builds each store once, and computes what does not depend on a cell
(evaluation activations, clean, zero and mean losses) once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from saebench import console
from saebench.activations.sources.context import Meter, Opener
from saebench.activations.sources.held_out import EvaluationSource
from saebench.activations.sources.held_out_tokens import Scored, ScoredTokens
from saebench.activations.sources.held_out_vectors import ScoredVectors
from saebench.activations.sources.near_duplicates import NearDuplicates
from saebench.activations.sources.passes import Passes
from saebench.activations.sources.validation_split import ASK, Part, part_of
from saebench.activations.store import ActivationStore
from saebench.activations.token_store import TokenStore, Windows
from saebench.activations.tokens import pack, sequence_digest, shuffled, token_policy, tokenised
from saebench.api.errors import Damaged, SuiteError
from saebench.artifacts import digest, machine_errors, remove
from saebench.cells.cell import DatasetUse, EvaluationSettings, ModelUse
from saebench.cells.plan import Cohort
from saebench.lm.model import LanguageModel

if TYPE_CHECKING:
    from pathlib import Path

    from saebench.activations.sources.training import TrainingSource
    from saebench.api.splits import Split
    from saebench.artifacts import RunFolder
    from saebench.host import Catalog

Store = TypeVar("Store", "ActivationStore", "TokenStore")
DATA_VERSION = 1
"""Goes up whenever equal suites can give other tokens or activations: it stands in the key of every store."""


class Sources:
    """All data of a run.

    Args:
        datasets: Every dataset of the suite by name (`plan.datasets`).
        run: Run folder: stores and caches stand there and are reused.
        catalog: Installed plugins.
        device: Where models run and batches are handed out.
        say: Hears in one line what was damaged and is made again, and what is doubtful about the data.
    """

    def __init__(
        self,
        datasets: Mapping[str, DatasetUse],
        *,
        run: RunFolder,
        catalog: Catalog,
        device: str | torch.device = "cpu",
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.run, self.catalog, self.say = run, catalog, say
        self.datasets = datasets
        self.device = torch.device(device)
        self._opener = Opener(datasets, run, catalog, say)
        self._models: dict[str, LanguageModel] = {}
        self._scored: dict[str, Scored] = {}
        self._passes = Passes(self)
        self._near = NearDuplicates(self)
        self._proven: set[Path] = set()

    def model(self, use: ModelUse) -> LanguageModel:
        """The language model, loaded once.

        Raises:
            SuiteError: It is not the model that was planned with.
        """
        if use.digest not in self._models:
            with console.phase("loading", use.id):
                loaded = LanguageModel.load(
                    use.id, use.revision, self.device, catalog=self.catalog, allow_unused=use.allow_unused
                )
            if loaded.facts.digest != use.digest:
                raise SuiteError(
                    f"model '{use.id}' changed since the plan was made (digest {loaded.facts.digest[:12]}, planned {use.digest[:12]}). Plan again: run with --fresh."
                )
            self._models[use.digest] = loaded
        return self._models[use.digest]

    def open(self, use: DatasetUse, *, seed: int, meter: Meter | None = None) -> Any:
        """A dataset of vectors, as its plugin opens it."""
        maker = use.model
        model = (lambda: self.model(maker)) if maker is not None else None
        length = maker.context if maker is not None else 0
        return self._opener.open(use, model=model, seed=seed, length=length, meter=meter or Meter())

    def whole(self, folder: Path, find: Callable[[bool], Store | None]) -> Store | None:
        """The store that an earlier run left in `folder`; None where it has to be filled, since there is none or it is damaged.

        `find(checked)` opens it; `checked` where this run has proven all of it already.
        """
        try:
            store = find(folder in self._proven)
        except Damaged as error:
            self.say(f"{error.found}. The store is filled again")
            self._proven.discard(folder)
            remove(folder)  # its room may be needed for that
            return None
        if store is not None and store.proven:
            self._proven.add(folder)
        return store

    def release(self) -> None:
        """Lets models, sources and cached evaluation go. Finished stores stay on disk, one half built beside training does not."""
        self._passes.release()
        self._models.clear()
        self._scored.clear()

    # --- training -----------------------------------------------------------------------------------------------------

    def check_disk(self, cohorts: Sequence[Cohort]) -> None:
        """Refuses up front stores that the disk or the quota cannot hold; call it with all coming cohorts, in order.

        Under a quota, stores that none of these cohorts needs make room for them from then on.

        Raises:
            MachineError: With what they take and what there is.
        """
        self._passes.check_disk(cohorts)

    def training(self, cohort: Cohort) -> TrainingSource:
        """Training activations of one cohort: a pass of one."""
        return self.training_pass([cohort])[0]

    def training_pass(self, cohorts: Sequence[Cohort], reads: Sequence[bool] | None = None) -> list[TrainingSource]:
        """Training activations of cohorts that differ in their hookpoints only, in their order.

        What must come from the model comes from one forward for all of them: stores that are missing are built together, and
        live sources share each forward while they are read in lockstep. Cohorts with the same rows get the same source.
        A new pass ends the one before: a store that it was building beside training and did not finish goes.

        Args:
            cohorts: What is wanted.
            reads: Whether somebody will read a cohort's rows, which are proven then (by default all are read); else its facts do.

        Raises:
            ValueError: They differ in more.
            SuiteError: The dataset has nothing usable.
            MachineError: A store does not fit on the disk or under the quota.
        """
        with machine_errors(self.run.root):
            return self._passes.open(cohorts, [True] * len(cohorts) if reads is None else reads)

    # --- tokens -------------------------------------------------------------------------------------------------------

    def windows(
        self,
        use: DatasetUse,
        model: ModelUse,
        split: Split,
        n_tokens: int,
        seed: int,
        meter: Meter,
        part: Part | None = None,
    ) -> Windows:
        """Token windows of a split of a text or generated dataset that hold `n_tokens` non-special tokens, or all there are.

        With `part`, of the documents (or sequences) that belong to it.
        """
        lm = self.model(model)
        opened = self.texts(use, model, seed, meter)
        documents: set[str] = set()
        if use.kind == "generated":
            windows = self._generated(opened, lm, split, n_tokens, model.context, documents, part)
        else:
            found = (text for text in opened.documents(split) if part is None or part_of(text.digest) == part)
            texts = tokenised(shuffled(found, seed), lm.encode_many, documents)
            windows = (torch.tensor(ids) for ids in pack(texts, context=model.context, bos_id=lm.bos_id))
        name = f"{split} part" if part is None else f"{part} part (of what is {split})"
        empty = (
            f"dataset '{use.name}' (plugin {use.plugin}): its {name} does not fill one window of {model.context} tokens"
        )
        return Windows(opened, windows, lm, n_tokens, documents, empty)

    def texts(self, use: DatasetUse, model: ModelUse, seed: int, meter: Meter) -> Any:
        """A text or generated dataset, as its plugin opens it."""
        return self._opener.open(use, model=lambda: self.model(model), seed=seed, length=model.context, meter=meter)

    @staticmethod
    def _generated(
        opened: Any,
        lm: LanguageModel,
        split: Split,
        n_tokens: int,
        context: int,
        digests: set[str],
        part: Part | None,
    ) -> Iterator[Tensor]:
        fill = lm.eos_id if lm.eos_id is not None else lm.bos_id
        for sequence in opened.sequences(split, n_tokens if part is None else ASK[part] * n_tokens):
            window = torch.full((context,), fill)
            window[: min(context, len(sequence))] = sequence[:context]
            code = sequence_digest(window)
            if part is None or part_of(code) == part:
                digests.add(code)
                yield window

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluation(
        self,
        dataset: DatasetUse,
        model: ModelUse | None,
        evaluation: EvaluationSettings,
        seed: int,
        *,
        training: TrainingSource | None,
        part: Part | None = None,
    ) -> EvaluationSource:
        """Held-out data for one evaluation seed, as one cell sees it.

        Everything that does not depend on the cell is computed once and shared.

        Args:
            dataset, model, evaluation, seed: What, where, how much.
            training: What the cell was trained on; none of its documents may be among these. None: this was seen to when cells were scored on it.
            part: `validation` for a search; else the part that the settings name, or all that is held out.

        Raises:
            SuiteError: No held-out data, or a held-out document is among the training documents.
        """
        sizes = {name: getattr(evaluation, name) for name in ("tokens", "loss_tokens", "density_tokens")}
        part = part or evaluation.part
        only = {"part": part} if part is not None else {}
        key = self.key(dataset, model, split="held-out", seed=seed, **sizes, **only)
        code = digest(key)
        if code not in self._scored:
            with machine_errors(self.run.root):
                self._scored[code] = (
                    ScoredVectors(self, dataset, sizes, seed, key, part)
                    if model is None
                    else ScoredTokens(self, dataset, model, sizes, seed, key, part)
                )
        scored = self._scored[code]
        if training is not None and (both := scored.documents & training.document_digests):
            raise SuiteError(
                f"dataset '{dataset.name}': {len(both)} held-out document(s), first sha256 {min(both)[:16]}, are also in the training documents of "
                f"'{training.dataset}'. The dataset plugin must give each part sequences of its own."
            )
        return EvaluationSource(scored, training, self.device, self._near)

    @property
    def evaluation_folders(self) -> set[Path]:
        """Folders of the stores that cached evaluation data reads."""
        return {folder for scored in self._scored.values() for folder in scored.folders}

    # --- keys ---------------------------------------------------------------------------------------------------------

    def policy(self, use: DatasetUse, model: ModelUse) -> dict[str, Any]:
        """How tokens of this dataset are made for this model."""
        lm = self.model(model)
        return token_policy(
            use.kind, context=model.context, bos_id=lm.bos_id, eos_id=lm.eos_id, special_ids=lm.special_ids
        )

    def key(self, use: DatasetUse, model: ModelUse | None, **more: Any) -> dict[str, Any]:
        """What decides a store's content."""
        key: dict[str, Any] = {"data_version": DATA_VERSION, "recipe": use.recipe, "dataset": use.name, **more}
        if model is not None:
            key |= {
                "model": model.digest,
                "hookpoint": model.hookpoint,
                "context": model.context,
                "policy": self.policy(use, model),
            }
        return key
