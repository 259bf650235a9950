"""Where cells get their activations from: training data of a cohort, evaluation data shared by all its cells.

One `Sources` serves a whole run. It loads each model once, builds each store once, and computes what does not depend on a cell
(evaluation activations, clean, zero and mean losses) once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench.api.batches import ActivationBatch
from saebench.api.errors import SuiteError
from saebench.artifacts import digest, machine_errors
from saebench.data.evaluation import EvaluationSource
from saebench.data.language_model import LanguageModel
from saebench.data.opening import Meter, Opener, progress_bar
from saebench.data.scored import VECTOR_ROWS, Scored, ScoredTokens, ScoredVectors
from saebench.data.seeds import generator
from saebench.data.store import ActivationStore, StoreWriter, to_device
from saebench.data.tokens import pack, sequence_digest, shuffled, token_policy, tokenised
from saebench.data.wants import CohortWanted, DatasetWanted, EvaluationWanted, ModelWanted

if TYPE_CHECKING:
    from saebench.api.splits import Split
    from saebench.artifacts import RunFolder
    from saebench.host import Catalog

DATA_VERSION = 1
"""Goes up whenever equal suites can give other tokens or activations: it stands in the key of every store."""


class TrainingSource:
    """Training activations of one cohort.

    Attributes:
        d_in: Width.
        n_tokens: Distinct tokens (vectors); a longer training repeats them, freshly shuffled each epoch.
        content: Digest of what the dataset is: its token windows, or its vectors.
        manifest: The dataset's own facts.
        token_policy: How tokens were made and which are left out; None without a model.
        data_cost: What making the data cost (`{"tokens", "flops"}`), the activations' forward not included.
        forward_flops_per_token: Of the forward to the hookpoint; 0 without a model.
        document_digests: Digests of the documents (or generated sequences) in it.
    """

    def __init__(self, store: ActivationStore, data_seed: int, device: torch.device) -> None:
        self._store, self._seed, self._device = store, data_seed, device
        self.d_in = store.d
        self.n_tokens = store.n_rows
        self.content: str = store.facts["content"]
        self.manifest: dict[str, Any] = store.facts["manifest"]
        self.token_policy: dict[str, Any] | None = store.facts["token_policy"]
        self.data_cost: dict[str, int] = store.facts["data_cost"]
        self.forward_flops_per_token: int = store.facts["forward_flops_per_token"]
        self.dataset: str = store.facts["dataset"]
        self.document_digests = store.documents

    def init_sample(self, n: int) -> Tensor:
        """`[min(n, n_tokens), d_in]` float32, a random sample that depends on the data seed alone."""
        rows = torch.randperm(self.n_tokens, generator=generator(self._seed, "init-sample"))[:n]
        return self._store.take(rows.sort().values).x.to(self._device)

    def batches(self, batch: int, seed: int) -> Iterator[ActivationBatch]:
        """Endless batches of exactly `batch` rows; every epoch is a fresh permutation, and a batch may span two."""
        if batch < 1:
            raise SuiteError(f"a batch has at least 1 token, got {batch}.")
        epoch, left = 0, torch.empty(0, dtype=torch.long)
        while True:
            while len(left) < batch:
                left = torch.cat([left, torch.randperm(self.n_tokens, generator=generator(seed, "epoch", epoch))])
                epoch += 1
            rows, left = left[:batch], left[batch:]
            yield to_device(self._store.take(rows), self._device)


class Windows:
    """Token sequences `[T]` of one part of a dataset, made while they are read. Read them once.

    Attributes:
        documents: Digest of every document read so far, or of every generated sequence.
        content: SHA-256 of all ids so far.
        manifest: The dataset's own facts; complete when all windows were read.
    """

    def __init__(
        self, opened: Any, windows: Iterator[Tensor], lm: LanguageModel, n_tokens: int, documents: set[str], empty: str
    ) -> None:
        self.documents = documents
        self._opened, self._windows, self._lm, self._wanted, self._empty = opened, windows, lm, n_tokens, empty
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[Tensor]:
        count = 0
        for window in self._windows:
            n = int((~self._lm.special_mask(window)).sum())
            if n == 0:
                continue
            self._hash.update(window.to(torch.int32).numpy().tobytes())
            yield window
            count += n
            if count >= self._wanted:
                break
        if count == 0:
            raise SuiteError(
                f"{self._empty} ({len(self.documents)} documents found). Give it more text, or lower the model's context."
            )

    @property
    def content(self) -> str:
        """SHA-256 of all ids so far."""
        return self._hash.hexdigest()

    @property
    def manifest(self) -> dict[str, Any]:
        """The dataset's own facts."""
        return dict(self._opened.manifest())


class Sources:
    """All data of a run.

    Args:
        datasets: Every dataset of the suite by name (`plan.datasets`).
        run: Run folder: stores and caches stand there and are reused.
        catalog: Installed plugins.
        device: Where models run and batches are handed out.
        progress: Whether to draw bars on standard error.
    """

    def __init__(
        self,
        datasets: Mapping[str, DatasetWanted],
        *,
        run: RunFolder,
        catalog: Catalog,
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> None:
        self.run, self.catalog, self.progress = run, catalog, progress
        self.device = torch.device(device)
        self._opener = Opener(datasets, run, catalog, progress)
        self._models: dict[str, LanguageModel] = {}
        self._training: dict[str, TrainingSource] = {}
        self._scored: dict[str, Scored] = {}

    def model(self, use: ModelWanted) -> LanguageModel:
        """The language model, loaded once.

        Raises:
            SuiteError: It is not the model that was planned with.
        """
        if use.digest not in self._models:
            loaded = LanguageModel.load(use.id, use.revision, self.device, catalog=self.catalog)
            if loaded.facts.digest != use.digest:
                raise SuiteError(
                    f"model '{use.id}' changed since the plan was made (digest {loaded.facts.digest[:12]}, planned {use.digest[:12]}). Plan again: run with --fresh."
                )
            self._models[use.digest] = loaded
        return self._models[use.digest]

    def open(self, use: DatasetWanted, *, seed: int) -> Any:
        """A dataset without a language model, as its plugin opens it."""
        return self._opener.open(use, model=None, seed=seed, length=0, meter=Meter())

    def release(self) -> None:
        """Lets models and cached evaluation go; stores on disk stay."""
        self._models.clear()
        self._training.clear()
        self._scored.clear()

    # --- training -----------------------------------------------------------------------------------------------------

    def training(self, cohort: CohortWanted) -> TrainingSource:
        """Training activations of a cohort: built into `run.activations(...)`, or read from there when they fit.

        Raises:
            SuiteError: The dataset has nothing usable.
            MachineError: The store does not fit on the disk.
        """
        use, model = cohort.dataset, cohort.model
        key = self._key(use, model, split="train", seed=cohort.data_seed, tokens=cohort.tokens, dtype=cohort.dtype)
        code = digest(key)
        if code not in self._training:
            folder = self.run.activations(code)
            store = ActivationStore.open(folder, key)
            if store is None:
                with machine_errors(self.run.root):
                    self._build_training(cohort, key)
                store = ActivationStore.open(folder, key)
                assert store is not None
            self._training[code] = TrainingSource(store, cohort.data_seed, self.device)
        return self._training[code]

    def _build_training(self, cohort: CohortWanted, key: dict[str, Any]) -> None:
        use, model = cohort.dataset, cohort.model
        folder = self.run.activations(digest(key))
        what = f"activations of {cohort.tokens:,} training tokens of '{use.name}'"
        meter = Meter()
        if model is None:
            vectors = self._opener.open(use, model=None, seed=cohort.data_seed, length=0, meter=meter)
            with ActivationStore.building(
                folder, key, d=vectors.d_in, dtype=cohort.dtype, expected_rows=cohort.tokens, what=what
            ) as writer:
                self._fill_vectors(writer, vectors, "train", cohort.tokens, cohort.data_seed, use)
                writer.facts = {
                    "manifest": dict(vectors.manifest()),
                    "token_policy": None,
                    "forward_flops_per_token": 0,
                }
                self._finish(writer, use, meter)
            return
        lm = self.model(model)
        windows = self.windows(use, model, "train", cohort.tokens, cohort.data_seed, meter)
        d = lm.facts.hookpoint(model.hookpoint).d
        with ActivationStore.building(
            folder, key, d=d, dtype=cohort.dtype, expected_rows=cohort.tokens, what=what
        ) as writer:
            self.fill(writer, lm, model.hookpoint, windows, cohort.tokens, f"{use.name}: activations")
            writer.documents = windows.documents
            writer.facts = {
                "manifest": windows.manifest,
                "token_policy": self._policy(use, model),
                "forward_flops_per_token": lm.facts.forward_flops_per_token(model.hookpoint),
                "content": windows.content,
            }
            self._finish(writer, use, meter)

    @staticmethod
    def _finish(writer: StoreWriter, use: DatasetWanted, meter: Meter) -> None:
        if not writer.n_rows:
            raise SuiteError(
                f"dataset '{use.name}' (plugin {use.plugin}) has no training data. Give it more, or name another dataset."
            )
        writer.facts |= {"dataset": use.name, "data_cost": meter.to_json()}
        if "content" not in writer.facts:
            writer.facts["content"] = writer.content()

    def _fill_vectors(
        self, writer: StoreWriter, vectors: Any, split: Split, n_tokens: int, seed: int, use: DatasetWanted
    ) -> None:
        with progress_bar(n_tokens, f"{use.name}: vectors", shown=self.progress) as bar:
            for batch in vectors.batches(split, n_tokens, VECTOR_ROWS, seed):
                if not bool(torch.isfinite(batch.x).all()):
                    raise SuiteError(
                        f"dataset '{use.name}' (plugin {use.plugin}) gave a vector that is not finite. Clean it first."
                    )
                writer.add(batch)
                bar.update(batch.n_tokens)

    def fill(
        self,
        writer: StoreWriter,
        lm: LanguageModel,
        hookpoint: str,
        windows: Iterable[Tensor],
        n_tokens: int,
        label: str,
    ) -> None:
        """Writes activations of the first `n_tokens` non-special tokens of windows `[T]`; reads all windows."""
        read = iter(windows)
        first = 0
        with progress_bar(n_tokens, label, shown=self.progress) as bar:
            while block := _stacked(read, lm):
                ids = trimmed(lm, block[0])
                rows, positions = (~lm.special_mask(ids)).nonzero(as_tuple=True)
                take = min(len(rows), n_tokens - writer.n_rows)
                rows, positions = rows[:take], positions[:take]
                if take:
                    x = lm.activations(ids, hookpoint)[rows.to(lm.device), positions.to(lm.device)]
                    if not bool(torch.isfinite(x).all()):
                        raise SuiteError(
                            f"model '{lm.facts.id}' gave an activation at '{hookpoint}' that is not finite."
                        )
                    writer.add(ActivationBatch(x, x, ids[rows, positions], positions, rows + first))
                first += len(ids)
                bar.update(take)

    # --- tokens -------------------------------------------------------------------------------------------------------

    def windows(
        self, use: DatasetWanted, model: ModelWanted, split: Split, n_tokens: int, seed: int, meter: Meter
    ) -> Windows:
        """Token windows of one part of a text or generated dataset that hold `n_tokens` non-special tokens, or all there are."""
        lm = self.model(model)
        opened = self._opener.open(use, model=lambda: lm, seed=seed, length=model.context, meter=meter)
        documents: set[str] = set()
        if use.kind == "generated":
            windows = self._generated(opened, lm, split, n_tokens, model.context, documents)
        else:
            texts = tokenised(shuffled(opened.documents(split), seed), lm.encode_many, documents)
            windows = (torch.tensor(ids) for ids in pack(texts, context=model.context, bos_id=lm.bos_id))
        empty = f"dataset '{use.name}' (plugin {use.plugin}): its {split} part does not fill one window of {model.context} tokens"
        return Windows(opened, windows, lm, n_tokens, documents, empty)

    @staticmethod
    def _generated(
        opened: Any, lm: LanguageModel, split: Split, n_tokens: int, context: int, digests: set[str]
    ) -> Iterator[Tensor]:
        fill = lm.eos_id if lm.eos_id is not None else lm.bos_id
        for sequence in opened.sequences(split, n_tokens):
            window = torch.full((context,), fill)
            window[: min(context, len(sequence))] = sequence[:context]
            digests.add(sequence_digest(window))
            yield window

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluation(
        self,
        dataset: DatasetWanted,
        model: ModelWanted | None,
        evaluation: EvaluationWanted,
        seed: int,
        *,
        training: TrainingSource,
    ) -> EvaluationSource:
        """Held-out data for one evaluation seed, as one cell sees it.

        Everything that does not depend on the cell is computed once and shared.

        Raises:
            SuiteError: No held-out data, or a held-out document is among the training documents.
        """
        sizes = {name: getattr(evaluation, name) for name in ("tokens", "loss_tokens", "density_tokens")}
        key = self._key(dataset, model, split="held-out", seed=seed, **sizes)
        code = digest(key)
        if code not in self._scored:
            with machine_errors(self.run.root):
                self._scored[code] = (
                    ScoredVectors(self, dataset, sizes, seed, key)
                    if model is None
                    else ScoredTokens(self, dataset, model, sizes, seed, key)
                )
        scored = self._scored[code]
        both = scored.documents & training.document_digests
        if both:
            raise SuiteError(
                f"dataset '{dataset.name}': {len(both)} held-out document(s), first sha256 {min(both)[:16]}, also stand in the training documents of "
                f"'{training.dataset}'. The dataset plugin must split by document (saebench.api.split_of)."
            )
        return EvaluationSource(scored, training, self.device)

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _policy(self, use: DatasetWanted, model: ModelWanted) -> dict[str, Any]:
        lm = self.model(model)
        return token_policy(
            use.kind, context=model.context, bos_id=lm.bos_id, eos_id=lm.eos_id, special_ids=lm.special_ids
        )

    def _key(self, use: DatasetWanted, model: ModelWanted | None, **more: Any) -> dict[str, Any]:
        """What decides a store's content."""
        key: dict[str, Any] = {"data_version": DATA_VERSION, "recipe": use.recipe, "dataset": use.name, **more}
        if model is not None:
            key |= {
                "model": model.digest,
                "hookpoint": model.hookpoint,
                "context": model.context,
                "policy": self._policy(use, model),
            }
        return key


def _stacked(windows: Iterator[Tensor], lm: LanguageModel) -> tuple[Tensor] | None:
    """The windows of the next forward as `[S, T]`, in a tuple that is always true; None at the end."""
    block = list(itertools.islice(windows, 1))
    if block:
        block += itertools.islice(windows, lm.rows_per_forward(len(block[0])) - 1)
    return (torch.stack(block),) if block else None


def trimmed(lm: LanguageModel, ids: Tensor) -> Tensor:
    """`ids [S, T]` without the columns in which every row is padding behind its end."""
    real = ~lm.special_mask(ids)
    columns = real.any(0).nonzero()
    last = int(columns.max()) if len(columns) else 0
    return ids[:, : min(ids.shape[1], last + 2)]
