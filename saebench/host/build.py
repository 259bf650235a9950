"""From a plugin's spec to a module, and from a checkpoint back to one: every SAE of saebench is made here.

Importing this module imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saebench.api.errors import Damaged, PluginError, SaebenchError, SuiteError, contained, describe, first_line, place
from saebench.api.specs import ArchitectureSpec, Cost, Site, resolve
from saebench.cells.cell import ArchitectureUse, Cell
from saebench.host.fitting import misfit
from saebench.host.sae_contract import broken_contract

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from saebench.host.catalog import Catalog

_PART = ("architecture", "version", "config")


def _tupled(value: Any) -> Any:
    # a config dataclass is frozen and hashable: its sequences are tuples, which JSON hands back as lists
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def parse_config(spec: ArchitectureSpec, config: Mapping[str, Any]) -> Any:
    """The spec's config dataclass, filled from a plan's or a checkpoint's mapping.

    Raises:
        PluginError: A key that the installed version of the architecture does not know, or lacks, or refuses.
    """
    known = {field.name for field in dataclasses.fields(spec.config)}
    unknown = sorted(set(config) - known)
    if unknown:
        raise PluginError(
            f"architecture '{spec.name}' {spec.version}: config key {', '.join(map(repr, unknown))} is unknown; known: "
            f"{', '.join(sorted(known))}. "
            "Install the plugin version that wrote it, or plan again."
        )
    try:
        with contained():
            return spec.config(**{name: _tupled(value) for name, value in config.items()})
    except Exception as error:
        raise PluginError(
            f"architecture '{spec.name}' {spec.version}: its config class refuses {dict(config)}: {first_line(error)}"
        ) from error


def cell_cost(cell: Cell, catalog: Catalog) -> Cost:
    """What a cell costs by itself; see `architecture_cost`."""
    return architecture_cost(cell.part, cell.base, cell.site, catalog)


def architecture_cost(part: ArchitectureUse, base: ArchitectureUse | None, site: Site, catalog: Catalog) -> Cost:
    """What an architecture costs at a site, a wrapper's base included. Builds nothing that takes memory.

    Raises:
        PluginError: `cost` raised, or did not return a `Cost`; or there is none, and a module cannot be built without
            memory.
    """
    spec = catalog.architecture(part.architecture).spec
    config = parse_config(spec, part.config)
    base_cost = architecture_cost(base, None, site, catalog) if spec.wraps and base is not None else None
    if spec.cost is None:
        return _default_cost(part, base, site, catalog, base_cost)
    who = f"architecture '{spec.name}' {spec.version}"
    try:
        with contained():
            cost = spec.cost(config, site) if base_cost is None else spec.cost(config, site, base_cost)
    except SaebenchError:
        raise
    except Exception as error:
        raise PluginError(f"{who}: cost raised {describe(error)}{place(error)}") from error
    if wrong := misfit(cost, Cost, "cost"):
        raise PluginError(f"{who}: {wrong}")
    return cost


def _default_cost(
    part: ArchitectureUse, base: ArchitectureUse | None, site: Site, catalog: Catalog, base_cost: Cost | None
) -> Cost:
    """Parameters and bytes of a module on the meta device, which has no memory; FLOPs of dense products, or of a
    wrapper's base."""
    import torch

    from saebench.nn.cost import dense_cost

    try:
        with torch.device("meta"):
            module: Any = build_module(part, base, site=site, generator=torch.Generator(), catalog=catalog)
    except PluginError as error:
        raise PluginError(
            f"{error}. Its parameters were to be counted on torch's meta device. Give the ArchitectureSpec a `cost`, "
            "or build without "
            "reading values of tensors."
        ) from error
    n_parameters = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    stored_bytes = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if base_cost is not None:
        return dataclasses.replace(base_cost, n_parameters=n_parameters, stored_bytes=stored_bytes)
    return dense_cost(site.d_in, module.d_sae, n_parameters=n_parameters, stored_bytes=stored_bytes)


def declared_side(part: ArchitectureUse, base: ArchitectureUse | None, catalog: Catalog) -> dict[str, int]:
    """Values a token that `encode` may leave for `decode`, by name: a wrapper's and those of what it wraps."""
    own = catalog.architecture(part.architecture).spec.side
    return {**(declared_side(base, None, catalog) if base is not None else {}), **own}


_MISTAKES = (TypeError, AttributeError, NameError, ImportError)
"""What is raised by a wrong signature or name, whether tensors have values or not."""


def dry_build(part: ArchitectureUse, base: ArchitectureUse | None, site: Site, catalog: Catalog) -> None:
    """Builds an architecture without memory, at its real size, and drops it; once for each. A plugin that reads values
    while it builds is not judged.

    Raises:
        PluginError: `build` takes other arguments, uses what is not there, or what it returned breaks the contract.
    """
    import torch

    if part.architecture in catalog.dry_built:
        return
    catalog.dry_built.add(part.architecture)
    try:
        with torch.device("meta"):
            build_module(part, base, site=site, generator=torch.Generator(), catalog=catalog)
    except PluginError as error:
        if error.__cause__ is None or isinstance(error.__cause__, _MISTAKES):
            raise
    except SaebenchError:
        return  # a refusal of its own, which a real build repeats


def build_module(
    part: ArchitectureUse,
    base: ArchitectureUse | None,
    *,
    site: Site,
    generator: torch.Generator,
    catalog: Catalog,
    parent: torch.nn.Module | None = None,
) -> torch.nn.Module:
    """An untrained SAE on the CPU, or one with its parent's weights. A wrapper's base is built first; it takes the
    parent's weights.

    Args:
        part: The architecture.
        base: What it wraps; needed when its spec says `wraps`.
        site: Where it reads and writes.
        generator: Every random number of the initialisation comes from here.
        catalog: Installed plugins.
        parent: Trained module (in its own units, not rescaled) that this one starts from.

    Raises:
        PluginError: `build` raised, or what it returned breaks the contract.
        SuiteError: The parent's weights do not fit.
    """
    spec = catalog.architecture(part.architecture).spec
    config = parse_config(spec, part.config)
    if spec.wraps:
        if base is None:
            raise PluginError(
                f"architecture '{spec.name}' wraps another architecture, and none was given. Give the entry an "
                "`init_from`."
            )
        inner = build_module(base, None, site=site, generator=generator, catalog=catalog, parent=parent)
        return _call_build(spec, config, site, generator, inner)
    module = _call_build(spec, config, site, generator)
    if parent is not None:
        _copy_parent(module, parent, spec.name)
    return module


def _call_build(
    spec: ArchitectureSpec, config: Any, site: Site, generator: torch.Generator, base: torch.nn.Module | None = None
) -> torch.nn.Module:
    import torch

    who = f"architecture '{spec.name}' {spec.version}"
    more = {"base": base} if spec.wraps else {}
    try:
        with contained():
            module: torch.nn.Module = resolve(spec.build)(config, site=site, generator=generator, **more)
    except SaebenchError:
        raise
    except Exception as error:
        raise PluginError(f"{who}: build raised {describe(error)}{place(error)}") from error
    if wrong := broken_contract(module, site.d_in):
        raise PluginError(f"{who}: {wrong}")
    for name, parameter in module.named_parameters():
        if not parameter.is_meta and not bool(torch.isfinite(parameter.detach()).all()):
            raise PluginError(
                f"{who}: build returned parameter '{name}' {list(parameter.shape)} with values that are not finite"
            )
    return module


def _copy_parent(module: Any, parent: torch.nn.Module, architecture: str) -> None:
    """Gives a module its parent's weights.

    Raises:
        SuiteError: They do not fit, or another support was frozen there (an expander's mask).
    """
    support = getattr(module, "support_digest", lambda: None)
    own = support()
    if wrong := _load_state(module, parent.state_dict()):
        raise SuiteError(
            f"init_from: the parent's weights do not fit architecture '{architecture}': {wrong} "
            "Start from an entry of the same architecture, config and hookpoint."
        )
    if support() != own:
        raise SuiteError(
            f"init_from: the parent's frozen support is not that of this config of architecture '{architecture}'. Use "
            "the parent's "
            "config (an expander's mask_seed)."
        )


def _load_state(module: torch.nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """Loads tensors, strictly; why they do not fit, or None."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        return " ".join(line.strip() for line in str(error).splitlines()[1:])
    return None


def load_module(folder: Path, catalog: Catalog) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The module of a checkpoint in the units it was trained in, and the checkpoint's meta.

    Raises:
        SuiteError: No checkpoint, or a damaged one.
        PluginError: The architecture is not installed, or the tensors do not fit it.
    """
    import torch

    from saebench.artifacts.checkpoints import META, read_checkpoint

    tensors, meta = read_checkpoint(folder)
    try:
        part = ArchitectureUse(meta["architecture"], meta["version"], meta["config"])
        base = ArchitectureUse(**{key: meta["base"][key] for key in _PART}) if meta.get("base") else None
        site = Site(**meta["site"])
        float(meta["input_scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{folder / META}: damaged ({describe(error)})") from error
    # the seed is of no consequence: every tensor is overwritten, strictly
    module = build_module(part, base, site=site, generator=torch.Generator().manual_seed(0), catalog=catalog)
    if wrong := _load_state(module, tensors):
        raise PluginError(
            f"{folder}: architecture '{part.architecture}' {part.version}: the stored tensors do not fit the module: "
            f"{wrong} "
            "Install the plugin version that wrote them."
        )
    return module.requires_grad_(False).eval(), meta


def load_sae(folder: Path, catalog: Catalog) -> torch.nn.Module:
    """A trained SAE (see `saebench.api.SparseAutoencoder`) on the CPU, in inference form and in the units of the
    activations.

    Raises:
        SuiteError: No checkpoint, or a damaged one.
        PluginError: The architecture is not installed, or the tensors do not fit it.
    """
    from saebench.nn import Rescaled

    module, meta = load_module(folder, catalog)
    scale = float(meta["input_scale"])
    return module if scale == 1.0 else Rescaled(module, scale).eval()
