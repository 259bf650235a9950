"""What this machine is; how fast it copies and multiplies, which other sections' figures are read beside."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from material import seconds
from notes import Notes

from sections import Setting

PACKAGES = ("numpy", "scipy", "transformers", "safetensors", "triton", "pytest", "pytest-xdist", "hypothesis")


def _driver() -> str | None:
    try:
        asked = [
            "nvidia-smi",
            "--query-gpu=driver_version,clocks.sm,clocks.mem,temperature.gpu",
            "--format=csv,noheader",
        ]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def run(notes: Notes, setting: Setting) -> None:
    import torch

    import saebench

    notes.fact("saebench", saebench.__version__)
    notes.fact("python", platform.python_version())
    notes.fact("torch", torch.__version__)
    notes.fact("processor", _processor())
    notes.fact("cores", len(os.sched_getaffinity(0)))
    notes.fact("load", os.getloadavg()[0])
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    notes.fact("packages", found)
    if setting.is_cuda:
        notes.check("torch sees a CUDA device", torch.cuda.is_available(), "use --device cpu, or mend driver and torch")
        if not torch.cuda.is_available():
            return
        card = torch.cuda.get_device_properties(0)
        notes.fact("gpu", card.name)
        notes.fact("capability", f"{card.major}.{card.minor}")
        notes.fact("gpu_memory_bytes", card.total_memory)
        notes.fact("cuda", torch.version.cuda)
        notes.fact("cudnn", torch.backends.cudnn.version())
        notes.fact("driver", _driver())
    n = 8192 if setting.is_cuda else 512 if setting.short else 2048
    for name in ("bfloat16", "float32"):
        a, b = (torch.randn(n, n, device=setting.place).to(getattr(torch, name)) for _ in range(2))
        taken = seconds(lambda a=a, b=b: torch.mm(a, b), setting.place, 5)
        notes.figure(f"product {n} x {n} x {n}, {name}", 2 * n**3 / taken / 1e12, "TFLOP/s")
    size = 1 << (30 if setting.is_cuda else 24)
    source = torch.empty(size, dtype=torch.uint8, device=setting.place).zero_()
    target = torch.empty_like(source)
    taken = seconds(lambda: target.copy_(source), setting.place, 5)
    notes.figure(f"copy of {size >> 20} MiB, read and written", 2 * size / taken / 1e9, "GB/s")
