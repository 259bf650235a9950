"""Whether a model can be loaded as a suite wants it, on this machine: told before anything is spent."""

from __future__ import annotations

import importlib.util
from typing import Any

from saebench.api.errors import SuiteError
from saebench.base.near import hint
from saebench.cells.load import LoadSettings
from saebench.lm import hf
from saebench.lm.folder.model_config import Kind, reason

_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Where an attention comes from; transformers would fetch code from the hub in place of a package that is missing."""


def refuse_unknown(load: LoadSettings, model_id: str) -> None:
    """Refuses an attention that transformers does not have.

    Raises:
        SuiteError: With the names it has.
    """
    if load.attention is not None and load.attention not in (known := hf.attentions()):
        raise SuiteError(
            f"model '{model_id}': attention {load.attention!r} is none that comes with transformers, and code from the "
            f"hub is never fetched. {hint(load.attention, known)}"
        )


def refuse_not_usable(load: LoadSettings, device: str, config: Any, kind: Kind, model_id: str) -> None:
    """Refuses what this machine cannot load.

    Raises:
        SuiteError: `not_usable` says why.
    """
    refuse_unknown(load, model_id)
    if (why := not_usable(load, device, config, kind)) is not None:
        raise SuiteError(f"model '{model_id}': {why}")


def not_usable(load: LoadSettings, device: str, config: Any, kind: Kind) -> str | None:
    """Why this machine cannot load a model so, with what to do; None where it can.

    Args:
        load: What the suite wants; its attention is known.
        device: Where the run is.
        config, kind: Of the model.
    """
    on_cpu = device.partition(":")[0] == "cpu"
    if load.device_map is not None and not _has("accelerate"):
        return "device_map needs the package accelerate: pip install accelerate, or leave device_map out."
    if isinstance(load.device_map, tuple) and any(place == "disk" for _, place in load.device_map):
        return "device_map puts a part of it on the disk, from where nothing is read. Put it on cpu."
    if load.quantisation is not None:
        if on_cpu:
            return (
                f"load.quantisation {load.quantisation} needs a GPU, and the run is on the CPU. Use --device cuda, or "
                "dtype: bfloat16 in its place."
            )
        missing = [name for name in ("bitsandbytes", "accelerate") if not _has(name)]
        if missing:
            return f"load.quantisation needs {' and '.join(missing)}: pip install {' '.join(missing)}, or leave it out."
    if load.attention is None:
        return None
    other = "Use attention: sdpa or eager, or leave it out."
    if load.attention.startswith("flash"):
        package = _PACKAGES.get(load.attention, "flash_attn")
        if on_cpu:
            return f"attention {load.attention} needs a GPU, and the run is on the CPU. {other}"
        if not _has(package):
            return f"attention {load.attention} needs the package {package}, which is not installed. {other}"
        if load.dtype == "float32":
            return f"attention {load.attention} computes in half precision only. Set dtype: bfloat16. {other}"
    try:
        hf.check_attention(config, load.attention, decoder=kind == "decoder", trust=load.trust_remote_code)
    except Exception as error:  # noqa: BLE001 - a model's own code
        return f"attention {load.attention} cannot be used with it ({reason(error)}). {other}"
    return None


def _has(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a package that something put into sys.modules by hand
        return False
