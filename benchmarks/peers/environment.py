"""The benchmark's own virtual environment: torch first, then saebench from this checkout, then the peers without their
dependencies.

No installation may bring another torch or torchvision along: a constraint holds torch, and `check` checks it again at
the end. What the peers need beyond saebench's own dependencies is listed by hand below, as far as a training step
imports
it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ("eai-sparsify==1.3.3", "sae-lens==6.54.12", "dictionary-learning==0.1.0", "transformer-lens==3.9.0")
"""Installed with --no-deps. transformer-lens is listed because SAELens' modules import it."""
NEEDED = (
    "accelerate", "babe", "beartype", "better-abc", "einops", "fancy-einsum", "jaxtyping", "natsort", "nltk", "plotly",
    "plotly-express", "python-dotenv", "requests", "rich", "schedulefree", "sentencepiece", "simple-parsing",
    "tenacity", "typeguard", "wandb",
)  # fmt: skip
"""What importing the peers' training steps takes."""
SHOWN = (
    "torch",
    "saebench-harness",
    "eai-sparsify",
    "sae-lens",
    "dictionary-learning",
    "transformer-lens",
    "transformers",
    "numpy",
)
"""Versions that are in the report; the JSON file has all of them."""


def torch_pin() -> str:
    """The Makefile's pin, so that it is in one place."""
    found = re.search(r"^TORCH := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("Makefile: no line 'TORCH := torch==...'. The benchmark uses the project's own pin.")
    return found.group(1)


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], check=True
    )


def versions(python: Path) -> dict[str, str]:
    """Every installed package of an environment."""
    listed = subprocess.run(
        [str(python), "-c", "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in "
                            "m.distributions()}))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(sorted(json.loads(listed.stdout).items()))


def check(python: Path) -> dict[str, str]:
    """The environment's versions.

    Raises:
        SystemExit: torch is not the pinned one, or torchvision is there (other builds of it break `import
            transformers`).
    """
    found = versions(python)
    pinned = torch_pin().split("==")[1]
    if found.get("torch", "").split("+")[0] != pinned:
        raise SystemExit(
            f"{python}: torch is {found.get('torch')}, the Makefile pins {pinned}. Delete the environment and run "
            "again."
        )
    if "torchvision" in found:
        raise SystemExit(f"{python}: torchvision is installed and must not be. Delete the environment and run again.")
    return found


def ensure(folder: Path) -> Path:
    """Makes the environment where it is missing or its recipe has changed.

    Args:
        folder: Of the virtual environment.

    Returns:
        Its Python.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pin = torch_pin()
    recipe = hashlib.sha256(
        json.dumps([pin, PEERS, NEEDED, sys.version_info[:2], (ROOT / "pyproject.toml").read_text()]).encode()
    ).hexdigest()
    stamp = folder / ".recipe"
    if stamp.exists() and stamp.read_text() == recipe:
        return python
    print(f"peers: making {folder} (a few minutes, once)", file=sys.stderr)
    venv.create(folder, with_pip=True)
    constraint = folder / "constraint.txt"
    constraint.write_text(pin + "\n")
    _pip(python, pin)
    _pip(python, "--constraint", str(constraint), "--editable", str(ROOT), *NEEDED)
    _pip(python, "--constraint", str(constraint), "--no-deps", *PEERS)
    check(python)
    stamp.write_text(recipe)
    return python
