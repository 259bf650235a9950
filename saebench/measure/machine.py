"""Machine and versions, recorded with every score and part of no id; the settings that make equal runs equal."""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from saebench.api.errors import MachineError, SuiteError
from saebench.version import __version__

_PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy", "scipy", "safetensors", "pluggy", "pydantic")


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def n_threads() -> int:
    """Threads that training and scoring use: OMP_NUM_THREADS, or the processors this process may run on."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_path() -> str:
    """Which instructions numbers came from, such as `AVX512, amx_bf16, avx512_bf16`.

    First what torch's own operators use (ATEN_CPU_CAPABILITY lowers it), then the bfloat16 units of the processor.
    """
    import torch

    from saebench.nn.kernels import backends

    return ", ".join((torch.backends.cpu.get_cpu_capability(), *backends.bf16_units()))


def host(device: str) -> dict[str, Any]:
    """The machine, without its name: a record may be published."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cpu_path": cpu_path(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "device": device,
    }
    if device.startswith("cuda"):
        import torch

        facts["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return facts


def check_device(device: str) -> None:
    """Refuses a device that this machine does not have.

    Raises:
        MachineError: It does not; the message names what it has.
        SuiteError: Not a device at all.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as error:
        from saebench.plan.forecast.devices import DEVICES

        known = device.strip().lower().replace("_", "-") in DEVICES
        plans = " A card that is elsewhere is one for `saebench plan` alone." if known else ""
        raise SuiteError(f"--device {device or '(empty)'}: not a device. Use cpu, cuda or cuda:N.{plans}") from error
    kind = found.type
    if kind not in ("cpu", "cuda"):  # torch knows more kinds; nothing here was measured or tested on them
        raise SuiteError(
            f"--device {device}: saebench does not run on devices of kind {kind}. Use cpu, cuda or cuda:N."
        )
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError(f"--device {device}: no CUDA device is visible here. Use --device cpu.")
    if kind == "cuda" and (found.index or 0) >= (count := torch.cuda.device_count()):
        raise MachineError(
            f"--device {device}: only {count} CUDA devices are visible here. Use cuda:0 to cuda:{count - 1}."
        )


@functools.cache
def versions() -> dict[str, str]:
    """saebench, Python and the packages whose code touches a number."""
    found = {"saebench": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def run_numerics(threads: int) -> Iterator[None]:
    """The settings of a run; the caller's come back afterwards.

    Args:
        threads: For torch's operators.
    """
    import torch

    before, deterministic, warn, fill = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    # cuBLAS is deterministic with a workspace of fixed size only; it reads this once, before its first product
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # we read no memory before writing it, and filling what is about to be written costs as much as writing it
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(before)
