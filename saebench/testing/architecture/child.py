"""The process that loads a checkpoint which another one wrote: `main` reads its folder from the command line."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from saebench.api import ArchitectureSpec
from saebench.testing.architecture.case import Case


def main() -> None:
    """Builds the architecture, loads the state, and writes what it makes of x; None where the spec cannot be found."""
    import torch

    folder = Path(sys.argv[-1])
    ask = json.loads((folder / "ask.json").read_text("utf-8"))
    spec = next((spec for spec in _specs(ask["places"]) if spec.name == ask["name"]), None)
    answer = None
    if spec is not None:
        config = spec.config(**pickle.loads(bytes.fromhex(ask["config"])))
        case = Case(spec, config, ask["d_in"], None)
        ours = torch.load(folder / "ours.pt", weights_only=True)
        sae = case.build(1, prepared=False)
        sae.load_state_dict(ours["state"], strict=True)
        sae.eval().requires_grad_(False)
        codes = case.codes(sae, ours["x"])
        answer = {"codes": codes.to_dense(), "x_hat": sae.decode(codes)}
    torch.save(answer, folder / "theirs.pt")


def _specs(places: list[tuple[str, str]]) -> Iterator[ArchitectureSpec]:
    """All architectures that the modules give or hold."""
    for name, file in places:
        module = _module(name, file)
        values: list[Any] = list(vars(module).values()) if module is not None else []
        hook = getattr(module, "saebench_architectures", None)
        yield from (one for one in (*values, *(hook() if hook else ())) if isinstance(one, ArchitectureSpec))


def _module(name: str, file: str) -> ModuleType | None:
    if name != "__main__":
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    found = importlib.util.spec_from_file_location(f"_checked_{abs(hash(file))}", file) if file else None
    if found is None or found.loader is None:
        return None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module
