"""Devices that a plan can be made for where there is none of them: what their makers say of them.

Figures are of dense products, without the doubling for structured sparsity that data sheets like to print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from saebench.api.errors import SuiteError
from saebench.base.near import hint

TERA, GIGA = 1e12, 1e9
DEFAULT = "h100"
"""Stands for `cuda` where no card is visible."""


@dataclass(frozen=True)
class Device:
    """One kind of card.

    Attributes:
        name: As `--device` takes it.
        title: As its maker names it.
        half_flops: FLOP/s of a bfloat16 (or float16) product on tensor cores that sums in float32.
        float32_flops: FLOP/s in float32. TensorFloat-32 is faster and less exact; saebench never turns it on.
        bytes_per_s: Of its memory.
        memory_bytes: Of its memory, as it is sold.
        source: Where the figures are from.
        words: All of them are in the name under which torch knows it, and none of `without`.
    """

    name: str
    title: str
    half_flops: float
    float32_flops: float
    bytes_per_s: float
    memory_bytes: int
    source: str
    words: tuple[str, ...]
    without: tuple[str, ...] = ()


def _device(
    name: str,
    title: str,
    half: float,
    float32: float,
    bandwidth: float,
    memory: int,
    source: str,
    words: str,
    without: str = "",
) -> Device:
    """TFLOP/s, GB/s and GB, as data sheets give them."""
    return Device(
        name,
        title,
        half * TERA,
        float32 * TERA,
        bandwidth * GIGA,
        int(memory * GIGA),
        source,
        tuple(words.split()),
        tuple(without.split()),
    )


_H100 = "NVIDIA H100 Tensor Core GPU data sheet"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet"
_ADA = "NVIDIA Ada GPU architecture white paper"
_ALL = (
    _device("h200", "NVIDIA H200 SXM 141 GB", 989, 67, 4800, 141, "NVIDIA H200 Tensor Core GPU data sheet", "H200"),
    _device("h100", "NVIDIA H100 SXM 80 GB", 989, 67, 3350, 80, _H100, "H100", without="PCIe NVL"),
    _device("h100-pcie", "NVIDIA H100 PCIe 80 GB", 756, 51, 2000, 80, _H100, "H100 PCIe"),
    _device("a100-80gb", "NVIDIA A100 SXM 80 GB", 312, 19.5, 2039, 80, _A100, "A100 80GB"),
    _device("a100-40gb", "NVIDIA A100 SXM 40 GB", 312, 19.5, 1555, 40, _A100, "A100 40GB"),
    _device("l40s", "NVIDIA L40S 48 GB", 362, 91.6, 864, 48, "NVIDIA L40S data sheet", "L40S"),
    _device("l4", "NVIDIA L4 24 GB", 121, 30.3, 300, 24, "NVIDIA L4 data sheet", "L4"),
    _device("a10", "NVIDIA A10 24 GB", 125, 31.2, 600, 24, "NVIDIA A10 data sheet", "A10"),
    _device("rtx4090", "NVIDIA GeForce RTX 4090 24 GB", 165.2, 82.6, 1008, 24, _ADA, "RTX 4090", without="Laptop"),
    _device(
        "rtx3090",
        "NVIDIA GeForce RTX 3090 24 GB",
        71,
        35.6,
        936,
        24,
        "NVIDIA Ampere GA102 GPU architecture white paper",
        "RTX 3090",
        without="Ti",
    ),
)
DEVICES: Mapping[str, Device] = MappingProxyType({device.name: device for device in _ALL})


def find_device(name: str) -> Device:
    """The device of this name.

    Raises:
        SuiteError: There is none; the message names the nearest, and all.
    """
    plain = name.strip().lower().replace("_", "-")
    found = DEVICES.get(plain)
    if found is None:
        kinds = [one for one in DEVICES if one.startswith(f"{plain}-")]  # `a100` is two cards
        meant = f"It is {' or '.join(kinds)}." if kinds else hint(name, ["cpu", "cuda", *DEVICES])
        raise SuiteError(f"--device {name or '(empty)'}: no device of that name is known. {meant}")
    return found


def known_as(title: str) -> Device | None:
    """The device that torch names so (`NVIDIA H100 80GB HBM3`); None for one that the table lacks."""
    words = title.replace("-", " ").split()
    for device in DEVICES.values():
        if all(word in words for word in device.words) and not any(word in words for word in device.without):
            return device
    return None
