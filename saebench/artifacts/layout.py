"""Where things are in a run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saebench.artifacts.proof import NOT_THERE, refused_reading
from saebench.base.paths import home

CHECKPOINTS = "checkpoints"
PROGRESS = ".saebench-progress.json"
FOLDERS = ("records", "groups", CHECKPOINTS, "snapshots", "arrays", "activations", "cache", "leaderboard")
"""Folders at the root of a run folder."""
ROOT_NAMES = frozenset({"plan.json", PROGRESS, *FOLDERS})
"""What saebench writes there, its lock aside."""


def cache_folder() -> Path:
    """What a user keeps between runs: `saebench` below `$XDG_CACHE_HOME` or `~/.cache`.

    Without a home it is a path below the null device: nothing is found there and nothing can be written.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "saebench"
    user = home()
    return user / ".cache" / "saebench" if user is not None else Path(os.devnull) / "saebench"


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder. Asking for a path creates nothing."""

    root: Path

    @property
    def plan(self) -> Path:
        """The frozen plan."""
        return self.root / "plan.json"

    @property
    def progress(self) -> Path:
        """A small file that says what a run does now. The run writes it, `saebench status` reads it."""
        return self.root / PROGRESS

    @property
    def leaderboard(self) -> Path:
        """Folder of the generated leaderboard."""
        return self.root / "leaderboard"

    def record(self, suite: str, entry: str, name: str) -> Path:
        """A cell's record; `name` is `Cell.record_name`."""
        return self.root / "records" / suite / entry / name

    def group_record(self, suite: str, folder: str, name: str) -> Path:
        """A group's record; `folder` and `name` are the `Group`'s."""
        return self.root / "groups" / suite / folder / f"{name}.json"

    def checkpoint(self, cell_id: str) -> Path:
        """Folder with sae.safetensors and sae.json."""
        return self.root / CHECKPOINTS / cell_id[:16]

    @property
    def snapshots(self) -> Path:
        """Folder with a folder for each cell in the middle of its training."""
        return self.root / "snapshots"

    def arrays(self, cell_id: str) -> Path:
        """Per-latent arrays of one cell."""
        return self.root / "arrays" / f"{cell_id[:16]}.safetensors"

    def group_arrays(self, group_id: str) -> Path:
        """Per-latent arrays of the members of one group."""
        return self.root / "arrays" / f"group-{group_id[:16]}.safetensors"

    def activations(self, digest: str) -> Path:
        """Activation store of one cohort or evaluation set."""
        return self.root / "activations" / digest[:16]

    def cache(self, digest: str) -> Path:
        """A dataset plugin's own folder. `digest` is that of its recipe."""
        return self.root / "cache" / digest[:16]

    def record_paths(self) -> Iterator[Path]:
        """All cell records, in path order.

        Raises MachineError where a folder cannot be read: what is in it would be missed.
        """
        return iter(_json_below(self.root / "records"))

    def group_paths(self) -> Iterator[Path]:
        """All group records, as `record_paths`."""
        return iter(_json_below(self.root / "groups"))


def _json_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        if error.errno not in NOT_THERE:
            raise refused_reading(Path(error.filename), error) from error

    walk = os.walk(folder, onerror=refuse)  # `rglob` passes over what it cannot read
    return sorted(
        Path(at, name) for at, folders, files in walk for name in (*folders, *files) if name.endswith(".json")
    )
