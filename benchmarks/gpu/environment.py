"""What a child process needs to import this checkout: no installation, no pip, standard library alone."""

from __future__ import annotations

import os
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def metadata(folder: Path) -> None:
    """Writes what an editable install would: name, version and entry points, by which built-in plugins are found."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {module}" for point, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")


def unpack(wheels: Path, folder: Path) -> int:
    """Unpacks every wheel of a folder into another; gives their number. A wheel is an archive of what is imported."""
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise SystemExit(f"--wheels {wheels}: no .whl files there. benchmarks/gpu/README.md has the command for them.")
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return len(found)


def prepare(scratch: Path, wheels: Path | None, *, small: bool = False) -> dict[str, str]:
    """The environment of the children: this checkout first on the path, wheels last, so that what is installed wins.

    Args:
        scratch: A folder of this run: metadata, wheels, caches.
        wheels: A folder of carried wheels, or None.
        small: One thread, where nothing else is asked for: small operators lose more to waiting than two threads gain.
    """
    metadata(scratch / "metadata")
    # metadata first: an install may have left older ones in the checkout
    path = [str(scratch / "metadata"), str(ROOT), str(ROOT / "plugins")]
    path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    if wheels is not None:
        unpack(wheels, scratch / "wheels")
    return {
        **({"OMP_NUM_THREADS": "1"} if small else {}),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "SAEBENCH_WHEELS": str(scratch / "wheels") if wheels is not None else "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "XDG_CACHE_HOME": str(scratch / "cache"),
        # cuBLAS reads it once, before its first product
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    }
