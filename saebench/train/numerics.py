"""In which precision a cell is trained, for its record; and what its bits depend on, for its snapshots."""

from __future__ import annotations

from typing import Any

import torch

from saebench.cells.cell import ENGINE_VERSION
from saebench.nn.kernels import backends

_PRODUCTS = {
    "bf16-screen": "float32; bfloat16 screens the encoder product, and what it cannot rule out is computed again in "
    "float32; "
    "AuxK's products with dead latents are bfloat16",
}


def numerics(device: torch.device, activations: str) -> dict[str, Any]:
    """`training.numerics` of the record.

    Args:
        device: Where the cell is trained.
        activations: Precision in which its inputs were stored or handed on.
    """
    backend = backends.current(device)
    return {
        "backend": backend,
        "parameters": "float32",
        "moments": "float32",
        "products": _PRODUCTS.get(backend, "float32"),
        "activations": activations,
        "deterministic": device.type == "cpu"
        or (torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()),
    }


def bits_depend_on(device: torch.device) -> dict[str, str | int]:
    """What decides the bits of training besides the cell: two runs that agree in all of it agree bit for bit."""
    if device.type == "cpu":
        place: dict[str, str | int] = {
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }
    else:
        place = {"gpu": torch.cuda.get_device_name(device)}
    return {"engine": ENGINE_VERSION, "torch": torch.__version__, "backend": backends.current(device), **place}
