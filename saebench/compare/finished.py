"""Any finished SAE as a module: a checkpoint or a record of ours, or what another library wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench.artifacts import surviving
from saebench.artifacts.checkpoints import META, TENSORS
from saebench.cells.cell import ArchitectureUse
from saebench.compare.sides import checkpoint_of, is_record
from saebench.interop.load import Finished, fill, read_finished
from saebench.interop.weights import ARCHITECTURE

if TYPE_CHECKING:
    import torch

    from saebench.host import Catalog


def ours(path: Path) -> Path | None:
    """The checkpoint folder that a folder, a file in it, or a record means; None where it is not ours.

    Raises:
        SuiteError: A record without its checkpoint.
    """
    if path.name in (META, TENSORS) and (path.parent / META).is_file():
        path = path.parent
    if (surviving(path) / META).is_file():
        return path
    return checkpoint_of(path) if is_record(path) else None


def load(
    path: Path, catalog: Catalog, *, assume: Mapping[str, Any] | None = None
) -> tuple[torch.nn.Module, Finished | None]:
    """An SAE in inference form and in the units of the activations, and what its library says of it (None: it is ours).

    Args:
        path: A checkpoint folder, a cell's record, another library's folder, or one file with tensors.
        catalog: Installed plugins.
        assume: Of one file: what it does not say (`k`, `activation`, `apply_b_dec_to_input`).

    Raises:
        SuiteError: Nothing there, or an SAE that cannot be read rightly.
        PluginError: The architecture's plugin is missing or broken.
    """
    from saebench.host.build import load_sae

    if (folder := ours(path)) is not None:
        return load_sae(folder, catalog), None
    finished = read_finished(path, assume=assume)
    return as_module(finished, catalog), finished


def as_module(finished: Finished, catalog: Catalog) -> torch.nn.Module:
    """A module of architecture `external` with these weights."""
    import torch

    from saebench.api import Site
    from saebench.host.build import build_module

    weights = finished.weights
    use = ArchitectureUse(ARCHITECTURE, catalog.architecture(ARCHITECTURE).spec.version, weights.config())
    site = Site(weights.d_in, weights.d_in)
    module = build_module(use, None, site=site, generator=torch.Generator().manual_seed(0), catalog=catalog)
    if weights.encoder.dtype.itemsize == 8:
        module = module.double()
    fill(module, weights)
    return module.requires_grad_(False).eval()
