"""Every hook of saebench. Arguments are passed by keyword; a plugin's function takes those that it names.

The first three are asked once, at start: they must not import torch or touch the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from saebench.api.specs import ArchitectureSpec, DatasetSpec, MetricSpec


PROJECT = "saebench"
ENTRY_POINT_GROUP = "saebench"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""A plugin writes it above a function named like a hook."""


@hookspec
def saebench_architectures() -> Sequence[ArchitectureSpec]:  # type: ignore[empty-body]
    """SAE architectures this plugin registers."""


@hookspec
def saebench_datasets() -> Sequence[DatasetSpec]:  # type: ignore[empty-body]
    """Datasets this plugin registers."""


@hookspec
def saebench_metrics() -> Sequence[MetricSpec]:  # type: ignore[empty-body]
    """Cell and group metrics this plugin registers."""


@hookspec(firstresult=True)
def saebench_load_model(ref: Mapping[str, Any]) -> Any | None:
    """A loaded language model for `ref` (`id`, `revision`), or None to leave it to others.

    The answer is a `torch.nn.Module` called as `model(input_ids=...)`, with `.config` and a `.tokenizer` attribute.
    """


@hookspec
def saebench_plan_ready(plan: Mapping[str, Any]) -> None:
    """The plan (its JSON form) is made; nothing has run yet."""


@hookspec
def saebench_cell_started(cell: Mapping[str, Any]) -> None:
    """A cell begins training."""


@hookspec
def saebench_train_progress(cell_id: str, tokens: int, allotted: int, fvu: float | None, l0: float | None) -> None:
    """How far the training of a cell is; called at most some tens of times a cell."""


@hookspec
def saebench_cell_finished(record: Mapping[str, Any]) -> None:
    """A cell's record was written, whatever its status."""


@hookspec
def saebench_leaderboard_written(folder: Path) -> None:
    """The leaderboard was written into `folder`."""
