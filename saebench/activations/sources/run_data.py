"""All data of a run: it loads each model once, builds each store once, and makes held-out data once for all cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from saebench.activations.sources.context import Context
from saebench.activations.sources.held_out.near_duplicates import NearDuplicates
from saebench.activations.sources.held_out.streams import HeldOut
from saebench.activations.sources.held_out.token_data import HeldOutTokens
from saebench.activations.sources.held_out.vector_data import HeldOutVectors
from saebench.activations.sources.training_stores import TrainingStores
from saebench.api.errors import SuiteError
from saebench.artifacts import digest, machine_errors

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.activations.sources.held_out.shared_data import HeldOutData
    from saebench.activations.sources.training import TrainingSource
    from saebench.activations.sources.validation_split import HeldOutPart
    from saebench.artifacts import RunFolder
    from saebench.cells.cell import DatasetUse, EvaluationSettings, ModelUse
    from saebench.cells.plan import Cohort
    from saebench.host import Catalog


class RunData:
    """Training data of cohorts, and held-out data for cells.

    Args:
        datasets: Every dataset of the suite by name (`plan.datasets`).
        run: Run folder. Its stores and caches are reused.
        catalog: Installed plugins.
        device: Where models run and batches are handed out.
        say: Prints one line: damaged data that is made again, or a doubt about the data.
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
        self.context = Context(datasets, run, catalog, torch.device(device), say)
        self._training = TrainingStores(self.context)
        self._held_out: dict[str, HeldOutData] = {}
        self._near = NearDuplicates(self.context)

    def release(self) -> None:
        """Drops models, training sources and held-out data. Finished stores stay, unfinished ones are removed."""
        self._training.release()
        self.context.release()
        self._held_out.clear()

    def release_held_out(self) -> None:
        """Drops held-out data with the losses kept for the cells that are scored on it. Its stores stay."""
        self._held_out.clear()

    def check_disk(self, cohorts: Sequence[Cohort]) -> None:
        """Refuses up front stores that the disk or the quota cannot hold. Call it with all coming cohorts, in order.

        Under a quota, stores that none of these cohorts needs may be removed from then on.

        Raises:
            MachineError: With the bytes that they take and the bytes that are free.
        """
        self._training.check_disk(cohorts)

    def training(self, cohort: Cohort) -> TrainingSource:
        """Training activations of one cohort: a pass of one."""
        return self.training_pass([cohort])[0]

    def training_pass(self, cohorts: Sequence[Cohort], reads: Sequence[bool] | None = None) -> list[TrainingSource]:
        """Training activations of cohorts that differ in their hookpoints only, in their order.

        What must come from the model comes from one forward for all of them: stores that are missing are built
        together, and live sources share each forward while they are read in lockstep. Cohorts with the same rows get
        the same source.
        A new pass ends the one before: a store that was being built beside training and is not finished is removed.

        Args:
            cohorts: Whose data.
            reads: Whether a cohort's rows will be read. Then they are compared with their digests now. Default: all.

        Raises:
            ValueError: The cohorts differ in more.
            SuiteError: The dataset has nothing usable.
            MachineError: A store does not fit on the disk or under the quota.
        """
        in_use = {folder for data in self._held_out.values() for folder in data.folders}
        with machine_errors(self.context.run.root):
            return self._training.open(cohorts, [True] * len(cohorts) if reads is None else reads, in_use)

    def training_sample(self, cohort: Cohort, n: int) -> Tensor:
        """`[min(n, there), d]` float32 on the CPU: rows that a cohort learns to write, of random training tokens.

        They are the first of a shuffled epoch: tokens of random places of one block (`train.shuffle`) after the other.
        Where the store is gone, the model reads what is needed again; the rows are the same.
        """
        with machine_errors(self.context.run.root):
            return self._training.sample(cohort, n)

    def held_out(
        self,
        dataset: DatasetUse,
        model: ModelUse | None,
        settings: EvaluationSettings,
        seed: int,
        *,
        training: TrainingSource | None,
        part: HeldOutPart | None = None,
    ) -> HeldOut:
        """Held-out data for one evaluation seed, as one cell sees it.

        Args:
            dataset, model, settings, seed: What, where, how much.
            training: What the cell was trained on. None of its documents may be held out. None: checked before.
            part: `validation` for a search. Default: the part that the settings name, or all that is held out.

        Raises:
            SuiteError: There is no held-out data, or a held-out document is among the training documents.
        """
        sizes = {name: getattr(settings, name) for name in ("tokens", "loss_tokens", "density_tokens")}
        part = part or settings.part
        only = {"part": part} if part is not None else {}
        key = self.context.key(dataset, model, split="held-out", seed=seed, **sizes, **only)
        code = digest(key)
        if code not in self._held_out:
            with machine_errors(self.context.run.root):
                self._held_out[code] = (
                    HeldOutVectors(self.context, dataset, sizes, seed, part, key)
                    if model is None
                    else HeldOutTokens(self.context, dataset, model, sizes, seed, part, key)
                )
        data = self._held_out[code]
        if training is not None and (both := data.documents & training.document_digests):
            raise SuiteError(
                f"dataset '{dataset.name}': {len(both)} held-out document(s), first sha256 {min(both)[:16]}, are also "
                f"in the training documents of '{training.dataset}'. "
                "The dataset plugin must give each part sequences of its own."
            )
        return HeldOut(data, training, self.context.device, self._near)
