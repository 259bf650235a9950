"""A small run folder as `saebench run` leaves it: checkpoints, arrays and records, with directions of our choosing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from bare_records import bare_cell

from saebench.api import Site
from saebench.artifacts import RunFolder, save_arrays, save_checkpoint, write_record
from saebench.cells.cell import ArchitectureUse
from saebench.host import load_catalog
from saebench.host.build import build_module


def cell_id(seed: int) -> str:
    """The id of the cell of a seed."""
    return hashlib.sha256(str(seed).encode()).hexdigest()


def write_cell(
    root: Path,
    seed: int,
    decoder: torch.Tensor,
    encoder: torch.Tensor,
    *,
    dead: tuple[int, ...] = (),
    tags: tuple[str, ...] = (),
    site: str = "layers.1",
    record: bool = True,
) -> Path:
    """Checkpoint, density and record of a TopK cell of entry `docs`; gives its checkpoint folder."""
    d_sae, d_in = decoder.shape
    catalog = load_catalog()
    spec = catalog.architecture("topk").spec
    part = ArchitectureUse("topk", spec.version, {"d_sae": d_sae, "k": 2})
    where = {"d_in": d_in, "d_out": d_in, "reads": site, "writes": site}
    module = build_module(part, None, site=Site(**where), generator=torch.Generator().manual_seed(0), catalog=catalog)
    state = module.state_dict() | {"W_dec": decoder, "W_enc": encoder}
    return write_checkpoint(root, seed, part, state, where, dead=dead, tags=tags, record=record)


def write_expander(root: Path, seed: int, *, mask_seed: int, d_sae: int = 12, d_in: int = 8) -> Path:
    """An untrained expander, whose support is decided by the mask seed."""
    catalog = load_catalog()
    spec = catalog.architecture("expander").spec
    part = ArchitectureUse("expander", spec.version, {"d_sae": d_sae, "k": 2, "degree": 3, "mask_seed": mask_seed})
    where = {"d_in": d_in, "d_out": d_in, "reads": "layers.1", "writes": "layers.1"}
    module = build_module(
        part, None, site=Site(**where), generator=torch.Generator().manual_seed(seed), catalog=catalog
    )
    return write_checkpoint(root, seed, part, module.state_dict(), where, tags=("signed_latents",))


def write_checkpoint(
    root: Path,
    seed: int,
    part: ArchitectureUse,
    state: dict[str, torch.Tensor],
    site: dict[str, object],
    *,
    dead: tuple[int, ...] = (),
    tags: tuple[str, ...] = (),
    record: bool = True,
) -> Path:
    """Writes what `score` and `match` read of a cell."""
    run, id, d_sae = RunFolder(root), cell_id(seed), int(part.config["d_sae"])
    folder = run.checkpoint(id)
    meta = {"architecture": part.architecture, "version": part.version, "config": dict(part.config), "base": None}
    save_checkpoint(
        folder, state, {**meta, "cell_id": id, "site": site, "d_sae": d_sae, "input_scale": 1.5, "tags": list(tags)}
    )
    density = torch.full((d_sae,), 0.1)
    density[list(dead)] = 0
    arrays = save_arrays(run.arrays(id), {"density": density})
    if record:
        made = bare_cell(id, id, entry="docs", point="k2") | {"arrays_sha256": arrays}
        write_record(run.record("small", "docs", f"k2-s{seed}-{id[:8]}.json"), made)
    return folder


def record_of(root: Path, seed: int) -> Path:
    """The record of the cell of a seed."""
    return RunFolder(root).record("small", "docs", f"k2-s{seed}-{cell_id(seed)[:8]}.json")
