"""What a person should know of how a model's files were read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saebench.lm.folder.model_config import Kind
from saebench.lm.folder.tensor_fit import Loading
from saebench.lm.folder.weights import WeightFiles

CHARACTERS_A_TOKEN = 4
"""Of English prose, about, for a vocabulary of 30,000 or more: what is assumed where the tokenizer is not here."""


def of_files(kind: Kind, loading: Loading, weights: WeightFiles) -> list[str]:
    """How its weight files were read, one sentence each."""
    here, found = weights.names, []
    if kind == "headless":
        found.append("it was saved without the layer that predicts tokens: metrics of its loss are null.")
    if weights.adapter:
        found.append(
            f"{' and '.join(weights.adapter)} {'are' if len(weights.adapter) > 1 else 'is'} not "
            f"applied: all numbers are of the weights in {here} alone."
        )
    if weights.unread:
        found.append(f"weights come from {here}; not read: {_some(weights.unread)}.")
    if loading.unused:
        found.append(
            f"{len(loading.unused)} tensors of {here} are not used, as load.allow_unused allows: "
            f"{_some(loading.unused)}."
        )
    if loading.aside:
        found.append(f"parts of {here} that no number depends on are not used: {_some(loading.aside)}.")
    if loading.random:
        found.append(f"parts that {here} lacks, and no number depends on, are random: {_some(loading.random)}.")
    return found


def of_code(folder: Path) -> str:
    """That the code of a folder is run, and which; or that it holds none."""
    code = sorted(path.name for path in folder.rglob("*.py"))
    if not code:
        return "load.trust_remote_code lets code of its own run, and its folder holds none."
    return f"its own code runs here ({_some(code)}), as load.trust_remote_code says."


def of_absence(lacks: tuple[str, ...], n_parameters: int) -> str:
    """What is not here, what that does to the plan, and what a run needs."""
    counted = f"tokens of text are counted as {CHARACTERS_A_TOKEN} characters each, "
    return (
        f"its {' and its '.join(lacks)} {'is' if lacks == ('tokenizer',) else 'are'} not here. This plan "
        f"rests on config.json ({n_parameters:,} parameters), "
        f"{counted if 'tokenizer' in lacks else ''}and a run will have other ids. `run` needs the whole model."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
