"""One side of a comparison: the directions of an SAE, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import Damaged, SuiteError
from saebench.artifacts import RunFolder, read_arrays, read_meta, read_record, records_of, surviving
from saebench.artifacts.checkpoints import META, TENSORS
from saebench.interop.formats import FORMATS, looked_for
from saebench.interop.read import read_foreign

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saebench.host import Catalog

    Floats = NDArray[np.floating[Any]]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Side:
    """An SAE as `saebench match` sees it.

    Attributes:
        path: What was read.
        kind: In words: `topk checkpoint`, `SAELens folder (jumprelu)`, `file`.
        detail: What tells it from its siblings (`topk k8 s0`, a config); may be empty.
        decoder: `[d_sae, d_out]`, a row a latent.
        encoder: `[d_sae, d_in]` or None.
        dead: `[d_sae]` bool, silent on what its density was measured on; None where it was not measured.
        signed_latents: Codes may be negative, so the sign of a direction is not identified.
        support: Digest of a frozen support of the weights; None where there is none.
        site: What it reads, as its checkpoint names it; None where it is not known.
        notes: What a reader of the numbers should know.
    """

    path: Path
    kind: str
    detail: str
    decoder: Floats
    encoder: Floats | None
    dead: Bools | None
    signed_latents: bool = False
    support: str | None = None
    site: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return len(self.decoder)

    @property
    def n_alive(self) -> int | None:
        """Latents that are not dead; None where it is not known."""
        return None if self.dead is None else int((~self.dead).sum())

    def to_json(self) -> dict[str, Any]:
        """All but the arrays."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "detail": self.detail,
            "d_sae": self.d_sae,
            "width": self.decoder.shape[1],
            "alive": self.n_alive,
            "encoder": self.encoder is not None,
            "signed_latents": self.signed_latents,
            "notes": list(self.notes),
        }


def read_side(path: str | Path, *, catalog: Catalog) -> Side:
    """Reads a checkpoint folder of ours, a cell's record, another library's folder, or a file with a matrix.

    Raises:
        SuiteError: It holds nothing that can be read.
        PluginError: The plugin of one of our checkpoints is missing or broken.
    """
    path = Path(path)
    if path.name in (META, TENSORS) and (path.parent / META).is_file():
        path = path.parent
    if (surviving(path) / META).is_file():
        return _checkpoint(path, catalog, detail=None)
    if is_record(path):
        return _checkpoint(checkpoint_of(path), catalog, detail=f"{path.parent.name} {path.stem.rsplit('-', 1)[0]}")
    if (path / "plan.json").is_file():
        raise SuiteError(
            f"{path}: a run folder, with many SAEs. Give the record of one (below {path}/records) or its folder (below "
            f"{path}/checkpoints)."
        )
    found = read_foreign(path)
    kind = found.library if found.library == "file" else f"{found.library} folder"
    return Side(
        found.path,
        f"{kind} ({found.architecture})" if found.architecture else kind,
        "",
        found.decoder,
        found.encoder,
        found.dead,
        notes=found.notes,
    )


def is_record(path: Path) -> bool:
    """Whether a file may be a record of ours."""
    return path.suffix == ".json" and path.is_file() and path.name not in {format.config for format in FORMATS}


def checkpoint_of(path: Path) -> Path:
    """The checkpoint folder of a record.

    Raises:
        SuiteError: It is no record, or its checkpoint is not there.
    """
    try:
        record = read_record(path)
    except Damaged as error:
        if any(parent.name == "records" for parent in path.resolve().parents):
            raise
        raise SuiteError(f"{path}: not the record of a cell ({error.found}). {looked_for()}") from error
    parents = [parent.parent for parent in path.resolve().parents if parent.name == "records"]
    if not parents:
        raise SuiteError(
            f"{path}: a record outside of a records/ folder does not say where its checkpoint is. Give the "
            "checkpoint's folder."
        )
    folder = RunFolder(parents[0]).checkpoint(record["cell_id"])
    if not surviving(folder).is_dir():
        status = record["facts"]["status"]
        why = "only the records are here" if status == "ok" else f"its cell is {status}"
        raise SuiteError(
            f"{path}: its checkpoint {folder} is not there ({why}). Give a cell whose checkpoint is there, or run the "
            "suite again."
        )
    return folder


def _checkpoint(folder: Path, catalog: Catalog, *, detail: str | None) -> Side:
    from saebench.host.build import load_sae
    from saebench.matching import decoder_directions, encoder_directions

    meta = read_meta(folder)
    sae = load_sae(folder, catalog)
    decoder = decoder_directions(sae)
    if decoder is None:
        raise SuiteError(
            f"{folder}: architecture '{meta['architecture']}' gives no decoder_directions() and has no W_dec, so its "
            "latents have no directions to match."
        )
    notes = []
    try:
        dead = _dead(RunFolder(folder.resolve().parent.parent), str(meta["cell_id"]))
    except Damaged as error:
        dead = None
        notes.append(f"{error.found}: which latents are dead is not known. Run the suite again to score it anew")
    tags = frozenset(meta.get("tags") or ())
    digest = getattr(sae, "support_digest", None)
    if "grouped_latents" in tags:
        notes.append("its latents come in groups whose single directions are not identified: low cosines mean little")
    site = meta.get("site")
    return Side(
        folder,
        f"{meta['architecture']} checkpoint",
        detail if detail is not None else _settings(meta.get("config")),
        decoder,
        encoder_directions(sae),
        dead,
        signed_latents="signed_latents" in tags,
        support=digest() if callable(digest) else None,
        site=site.get("reads") if isinstance(site, Mapping) else None,
        notes=tuple(notes),
    )


def _dead(run: RunFolder, cell_id: str) -> Bools | None:
    """`[d_sae]` bool: silent on the cell's held-out data, by the arrays of one of its records; None without arrays.

    Raises:
        Damaged: The arrays are those of none of its records.
    """
    damage: Damaged | None = None
    for record in records_of(run, cell_id):
        try:
            density = read_arrays(run.arrays(cell_id), record["arrays_sha256"]).get("density")
        except Damaged as error:
            damage = error
            continue
        if density is not None:
            return np.asarray((density == 0).numpy())
    if damage is not None:
        raise damage
    return None


def _settings(config: object) -> str:
    """`k 8` and the like: what a sweep usually varies."""
    keys: Sequence[str] = ("k", "target_l0", "l1", "degree", "tilt")
    shown = [(name, config[name]) for name in keys if name in config] if isinstance(config, Mapping) else []
    return ", ".join(f"{name} {value:g}" for name, value in shown if isinstance(value, int | float))
