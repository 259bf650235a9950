"""From a plugin's spec to a module, and from a checkpoint back to one: every SAE of saebench is made here.

Importing this module imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from saebench.api.codes import SparseCodes
from saebench.api.errors import Damaged, NotFinite, PluginError, SaebenchError, contained, describe, first_line
from saebench.api.specs import ArchitectureSpec, Cost, Site, resolve
from saebench.host.fitting import misfit

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from saebench.host.catalog import Catalog

REQUIRED = ("encode", "decode", "training_loss")


class PartLike(Protocol):
    """An architecture with its full config, as a plan (or a checkpoint) names it."""

    @property
    def architecture(self) -> str:
        """Lower-kebab id."""
        ...

    @property
    def version(self) -> str:
        """Version of the architecture's spec."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Every field of the spec's config class."""
        ...


@dataclass(frozen=True)
class _Part:
    architecture: str
    version: str
    config: Mapping[str, Any]


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
            f"architecture '{spec.name}' {spec.version}: config key {', '.join(map(repr, unknown))} is unknown; known: {', '.join(sorted(known))}. "
            "Install the plugin version that wrote it, or plan again."
        )
    try:
        with contained():
            return spec.config(**{name: _tupled(value) for name, value in config.items()})
    except Exception as error:
        raise PluginError(
            f"architecture '{spec.name}' {spec.version}: its config class refuses {dict(config)}: {first_line(error)}"
        ) from error


def part_cost(part: PartLike, base: PartLike | None, site: Site, catalog: Catalog) -> Cost:
    """What a part costs, a wrapper's base included. Builds nothing.

    Raises:
        PluginError: `cost` raised, or did not return a `Cost`.
    """
    spec = catalog.architecture(part.architecture).spec
    config = parse_config(spec, part.config)
    arguments: tuple[Any, ...] = (config, site)
    if spec.wraps and base is not None:
        arguments = (*arguments, part_cost(base, None, site, catalog))
    try:
        with contained():
            cost = spec.cost(*arguments)
    except SaebenchError:
        raise
    except Exception as error:
        raise PluginError(f"architecture '{spec.name}' {spec.version}: cost raised {describe(error)}") from error
    if wrong := misfit(cost, Cost, "cost"):
        raise PluginError(f"architecture '{spec.name}' {spec.version}: {wrong}")
    return cost


def build_module(
    part: PartLike,
    base: PartLike | None,
    *,
    site: Site,
    generator: torch.Generator,
    catalog: Catalog,
    parent: torch.nn.Module | None = None,
) -> torch.nn.Module:
    """An untrained SAE on the CPU.

    A wrapper's base is built first and takes the parent's weights; any other architecture gets the parent as `init_from`.

    Args:
        part: The architecture.
        base: What it wraps; needed when its spec says `wraps`.
        site: Where it reads and writes.
        generator: Every random number of the initialisation comes from here.
        catalog: Installed plugins.
        parent: Trained module (in its own units, not rescaled) that this one starts from.

    Raises:
        PluginError: `build` raised, or what it returned breaks the contract.
    """
    spec = catalog.architecture(part.architecture).spec
    config = parse_config(spec, part.config)
    if not spec.wraps:
        return _call_build(spec, config, site, generator, init_from=parent, base=None)
    if base is None:
        raise PluginError(
            f"architecture '{spec.name}' wraps another architecture, and none was given. Give the entry an `init_from`."
        )
    inner = build_module(base, None, site=site, generator=generator, catalog=catalog)
    if parent is not None:
        _load_state(
            inner, parent.state_dict(), f"base '{base.architecture}' of '{spec.name}', from its parent's weights"
        )
    return _call_build(spec, config, site, generator, init_from=None, base=inner)


def _call_build(
    spec: ArchitectureSpec,
    config: Any,
    site: Site,
    generator: torch.Generator,
    *,
    init_from: torch.nn.Module | None,
    base: torch.nn.Module | None,
) -> torch.nn.Module:
    import torch

    who = f"architecture '{spec.name}' {spec.version}"
    try:
        with contained():
            module = resolve(spec.build)(config, site=site, generator=generator, init_from=init_from, base=base)
    except SaebenchError:
        raise
    except Exception as error:
        raise PluginError(f"{who}: build raised {describe(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise PluginError(f"{who}: build must return a torch.nn.Module, got {type(module).__name__}")
    missing = [name for name in REQUIRED if not callable(getattr(module, name, None))]
    if missing:
        raise PluginError(
            f"{who}: build returned {type(module).__name__} without {', '.join(missing)}. See saebench.api.SparseAutoencoder."
        )
    if getattr(module, "d_in", None) != site.d_in:
        raise PluginError(
            f"{who}: the module's d_in is {getattr(module, 'd_in', 'missing')}, but the site has d_in {site.d_in}"
        )
    if not isinstance(getattr(module, "d_sae", None), int):
        raise PluginError(
            f"{who}: the module's d_sae must be an int, got {type(getattr(module, 'd_sae', None)).__name__}"
        )
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter.detach()).all()):
            raise PluginError(
                f"{who}: build returned parameter '{name}' {list(parameter.shape)} with values that are not finite"
            )
    return module


def _load_state(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines()[1:])
        raise PluginError(
            f"{what}: the stored tensors do not fit the module: {lines} Install the plugin version that wrote them."
        ) from error


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
        part = _Part(meta["architecture"], meta["version"], meta["config"])
        base = (
            _Part(**{key: meta["base"][key] for key in ("architecture", "version", "config")})
            if meta.get("base")
            else None
        )
        site = Site(**meta["site"])
        float(meta["input_scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{folder / META}: damaged ({describe(error)})") from error
    # the seed is of no consequence: every tensor is overwritten, strictly
    module = build_module(part, base, site=site, generator=torch.Generator().manual_seed(0), catalog=catalog)
    _load_state(module, tensors, f"{folder}: architecture '{part.architecture}' {part.version}")
    return module.requires_grad_(False).eval(), meta


def load_sae(folder: Path, catalog: Catalog) -> torch.nn.Module:
    """A trained SAE (see `saebench.api.SparseAutoencoder`) on the CPU, in inference form and in the units of the activations.

    Raises:
        SuiteError: No checkpoint, or a damaged one.
        PluginError: The architecture is not installed, or the tensors do not fit it.
    """
    from saebench.nn import Rescaled

    module, meta = load_module(folder, catalog)
    scale = float(meta["input_scale"])
    return module if scale == 1.0 else Rescaled(module, scale).eval()


def normalise_codes(answer: object, d_sae: int, *, n_rows: int | None = None, plugin: str = "the SAE") -> SparseCodes:
    """What `encode` answered, as checked sparse codes; a dense `[B, d_sae]` tensor is converted.

    Args:
        answer: What `encode` returned.
        d_sae: Number of latents.
        n_rows: B, where it is known.
        plugin: Named in errors.

    Raises:
        PluginError: Neither codes nor a dense tensor, or a wrong shape or type.
        NotFinite: Values that are not finite.
    """
    import torch

    def breach(found: str) -> PluginError:
        return PluginError(
            f"{plugin}: encode must return SparseCodes or a float tensor [{n_rows or 'B'}, {d_sae}], got {found}"
        )

    if isinstance(answer, torch.Tensor):
        if answer.ndim != 2 or answer.shape[1] != d_sae or not answer.is_floating_point():
            raise breach(f"a {answer.dtype} tensor {list(answer.shape)}")
        codes = SparseCodes.from_dense(answer)
    elif isinstance(answer, SparseCodes):
        codes = answer
    else:
        raise breach(type(answer).__name__)
    n_values = codes.values.numel()
    if (
        codes.d_sae != d_sae
        or codes.values.ndim != 1
        or codes.latents.shape != codes.values.shape
        or codes.offsets.ndim != 1
    ):
        raise breach(
            f"codes with d_sae {codes.d_sae}, values {list(codes.values.shape)}, latents {list(codes.latents.shape)}, offsets {list(codes.offsets.shape)}"
        )
    if n_rows is not None and codes.n_rows != n_rows:
        raise breach(f"{codes.n_rows} rows")
    if not codes.values.is_floating_point() or codes.latents.dtype != torch.int64 or codes.offsets.dtype != torch.int64:
        raise breach(
            f"codes of types {codes.values.dtype}, {codes.latents.dtype}, {codes.offsets.dtype} (float, int64, int64 wanted)"
        )
    if int(codes.offsets[0]) != 0 or int(codes.offsets[-1]) != n_values or bool((codes.offsets.diff() < 0).any()):
        raise breach(f"offsets that do not run from 0 to {n_values} without falling")
    if n_values:
        low, high = int(codes.latents.min()), int(codes.latents.max())
        if low < 0 or high >= d_sae:
            raise breach(f"latents from {low} to {high}")
        if not bool(torch.isfinite(codes.values).all()):
            raise NotFinite(str(breach("values that are not finite")))
    return codes
