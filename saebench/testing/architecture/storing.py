"""Rules of what a checkpoint holds: all that makes the SAE, in this process and in another."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from saebench.api.specs import resolve
from saebench.testing.architecture.building import (
    draws_from_the_given_generator,
    is_an_sae,
    same_seed_same_bits,
    shapes,
)
from saebench.testing.architecture.case import Case
from saebench.testing.architecture.coding import calls_are_forgotten, codes_are_all
from saebench.testing.check import Rule, Skip

CHILD_SECONDS = 120


def round_trip(case: Case) -> None:
    """The state dict, loaded into another module."""
    import torch

    sae = case.ready()
    other = case.twin(sae)
    ours, theirs = sae.decode(case.codes(sae, case.x[:32])), other.decode(case.codes(other, case.x[:32]))
    assert torch.equal(ours, theirs), "saving and loading the state dict changes the reconstruction"


def directions(case: Case) -> None:
    """What latents read and write."""
    import torch

    sae = case.ready()
    for which, name in (("decoder_directions", "W_dec"), ("encoder_directions", "W_enc")):
        rows = getattr(sae, which)() if hasattr(sae, which) else getattr(sae, name, None)
        assert rows is not None, f"neither {which}() nor {name} is there"
        assert rows.shape == (sae.d_sae, case.d_in), f"{which} are {tuple(rows.shape)}, needed {(sae.d_sae, case.d_in)}"
        assert torch.isfinite(rows).all(), f"{which} are not finite"


def another_process(case: Case) -> None:
    """The state dict, loaded in a process that never trained."""
    import torch

    if not case.other_process:
        raise Skip("not asked for")
    if case.base is not None:
        raise Skip("a wrapper's base is made by the caller")
    places = _places(case)
    sae = case.ready()
    codes = case.codes(sae, case.x[:32])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save({"state": sae.state_dict(), "x": case.x[:32].clone()}, folder / "ours.pt")
        try:
            config = pickle.dumps(vars(case.config)).hex()
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise AssertionError(f"the config cannot be written down ({error})") from error
        ask = {"path": sys.path, "places": places, "name": case.spec.name, "config": config, "d_in": case.d_in}
        (folder / "ask.json").write_text(json.dumps(ask), "utf-8")
        command = [sys.executable, "-c", "from saebench.testing.architecture.child import main; main()", name]
        start = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}; "
        command[2] = start + command[2]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it ended without a word"]
            raise AssertionError(f"another process cannot load it: {lines[-1]}")
        theirs = torch.load(folder / "theirs.pt", weights_only=True)
    if theirs is None:
        raise Skip("no module gives the spec by name to another process")
    assert torch.allclose(theirs["codes"], codes.to_dense(), rtol=1e-5, atol=1e-6), (
        "another process that loads the state dict gives other codes"
    )
    assert torch.allclose(theirs["x_hat"], sae.decode(codes), rtol=1e-5, atol=1e-6), (
        "another process that loads the state dict gives another reconstruction"
    )


def _places(case: Case) -> list[tuple[str, str]]:
    """Modules, and their files, in which another process may find the spec."""
    found: dict[str, str] = {}
    for thing in (case.spec.config, case.spec.build if callable(case.spec.build) else resolve(case.spec.build)):
        module: Any = sys.modules.get(str(getattr(thing, "__module__", "")))
        while module is not None and module.__name__ not in found:
            found[module.__name__] = str(getattr(module, "__file__", "") or "")
            module = sys.modules.get(module.__name__.rpartition(".")[0])
    return list(found.items())


RULES: tuple[Rule[Case], ...] = (
    Rule(
        "saving and loading changes nothing",
        round_trip,
        "What training or finalize sets belongs in a parameter or a buffer (register_buffer), never in an attribute.",
        (is_an_sae, shapes, draws_from_the_given_generator, calls_are_forgotten, codes_are_all),
    ),
    Rule(
        "another process loads it",
        another_process,
        "A module-level variable, an environment variable or a cache is not there in the process that scores: put it "
        "into the config, or into a buffer.",
        (is_an_sae, shapes, same_seed_same_bits, round_trip, codes_are_all),
    ),
    Rule(
        "directions are [d_sae, d_in]",
        directions,
        "Store W_dec and W_enc as [d_sae, d_in], one row a latent, or write decoder_directions() and "
        "encoder_directions().",
        (is_an_sae, shapes),
    ),
)
