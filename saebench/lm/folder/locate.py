"""Model folders: which folder an id means, and whether it holds what a model needs. No weight is loaded."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path
from textwrap import shorten
from typing import Any

from saebench.api.errors import SuiteError
from saebench.base.paths import located
from saebench.base.text import without_folders

BUILT_IN = {"docs-lm": Path(__file__).parents[1] / "docs_lm"}
_TOKENIZER = re.compile(
    r"tokenizer\.json|tokenizer\.model.*|spiece\.model|sentencepiece\.bpe\.model|vocab\.(json|txt)|tekken\.json"
    r"|.*\.tiktoken|.*\.spm"
)
DECIDING = re.compile(
    r"config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt|.*\.model|tekken\.json"
    r"|.*\.tiktoken|.*\.spm|bpe\.codes"
)
WEIGHT_SETS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""One file, or the index of several: safetensors first."""
OTHER_WEIGHTS = re.compile(
    r".*\.safetensors|pytorch_model.*\.bin|.*\.gguf|consolidated.*\.pth|tf_model\.h5|.*\.msgpack"
)
_LFS = b"version https://git-lfs.github.com/spec"


def model_folder(model_id: str, revision: str | None = None, *, config_alone: bool = False, code: bool = False) -> Path:
    """The folder behind an id: built in, a folder, or a snapshot from the hub.

    With `config_alone`, weights and tokenizer may be missing, and from the hub no weights are fetched. With `code`, the
    code that a model brings along is fetched too.

    Raises:
        SuiteError: No such folder, no model in it, or the hub cannot be reached.
    """
    if model_id in BUILT_IN:
        return _checked(BUILT_IN[model_id], model_id, config_alone)
    path = located(model_id)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, a folder that is not ours to enter
        raise SuiteError(
            f"model '{model_id[:80]}': cannot be looked for ({error.strerror}). Allowed: "
            f"a model folder, a hub id or {_built_in()}."
        ) from error
    if is_folder:
        return _checked(path, model_id, config_alone)
    if exists:
        raise SuiteError(
            f"model '{model_id}' is a file; "
            f"a model is a folder (config.json, weights, tokenizer), a hub id or {_built_in()}."
        )
    if model_id.startswith(("/", ".", "~")) or model_id.count("/") > 1 or "\\" in model_id:
        siblings = [child.name for child in path.parent.iterdir() if child.is_dir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        hint = f"Did you mean '{path.parent / near[0]}'? " if near else ""
        raise SuiteError(
            f"model '{model_id}': there is no such folder. {hint}Allowed: a model folder, a hub id or {_built_in()}."
        )
    return _checked(_from_hub(model_id, revision, config_alone, code), model_id, config_alone)


def _built_in() -> str:
    return "the built-in " + ", ".join(repr(name) for name in BUILT_IN)


def _from_hub(model_id: str, revision: str | None, config_alone: bool, code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    texts = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.spm", *(["*.py"] if code else [])]
    where = f"model '{model_id}'{f' at revision {revision}' if revision else ''}"
    disable_progress_bars()
    try:
        if config_alone:  # a snapshot that has its weights in the cache already is read with them
            return Path(snapshot_download(model_id, revision=revision, allow_patterns=texts))
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=[*texts, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=[*texts, "pytorch_model*.bin"]))
    except GatedRepoError as error:
        raise SuiteError(
            f"{where} is gated: accept its terms on its page of the hub and log in (`hf auth login`), then run again."
        ) from error
    except Exception as error:
        near = difflib.get_close_matches(model_id, BUILT_IN, n=1)
        hint = f"Did you mean the built-in '{near[0]}'? " if near else ""
        raise SuiteError(
            f"{where}: {hint}no folder of that name is here, and the hub did not give it "
            f"({in_a_line(error)}). Offline, run `hf download {model_id} --local-dir FOLDER` on a connected machine, "
            "bring the folder here, and write its path as the id."
        ) from error
    finally:
        enable_progress_bars()
    return folder


def in_a_line(error: BaseException) -> str:
    """Type and message of an error of a library, short."""
    text = without_folders(" ".join(str(error).split()))
    return f"{type(error).__name__}: {shorten(text, 160, placeholder=' ...')}" if text else type(error).__name__


def lacking(names: Collection[str]) -> tuple[str, ...]:
    """What a folder with files of these names lacks beside its config: `weights`, `tokenizer`.

    The index of weights alone is no weight: it comes along where all small files of a model were fetched.
    """
    patterns = {"weights": OTHER_WEIGHTS, "tokenizer": _TOKENIZER}
    return tuple(what for what, pattern in patterns.items() if not any(map(pattern.fullmatch, names)))


def _checked(folder: Path, model_id: str, config_alone: bool) -> Path:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    adapter = "adapter_config.json" in names
    if adapter and not any(name in names for pair in WEIGHT_SETS for name in pair):
        base = json_object(folder / "adapter_config.json", model_id).get("base_model_name_or_path")
        raise SuiteError(
            f"model '{model_id}' is an adapter without the weights of its base model{f' ({base})' if base else ''}. "
            "Merge it into the base model (`merge_and_unload`), save the result with its tokenizer, and give "
            "that folder."
        )
    missing = [] if "config.json" in names else ["config.json"]
    lacks = lacking(names)
    if "weights" in lacks and not any(pair[1] in names for pair in WEIGHT_SETS):
        missing.append("weights (model.safetensors)")
    if "tokenizer" in lacks:
        missing.append("a tokenizer (tokenizer.json)")
    if missing and not (config_alone and "config.json" in names):
        found = ", ".join(sorted(names)[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"
        raise SuiteError(
            f"model '{model_id}' is no transformers model folder: {' and '.join(missing)} missing, found {found}. "
            "Give a folder that `save_pretrained` of both the model and its tokenizer wrote."
            + (" `saebench plan` needs config.json alone." if "config.json" in names else "")
        )
    for name in sorted(names):
        if DECIDING.fullmatch(name) and (folder / name).is_file():
            check_real(folder / name, model_id)
    return folder


def check_real(path: Path, model_id: str) -> None:
    """Refuses a file that is empty, or a pointer of Git LFS in place of the file."""
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        raise SuiteError(
            f"model '{model_id}': {path.name} is a pointer of Git LFS, not the file itself. "
            "Run `git lfs pull` in the folder, or download it again."
        )
    if not start:
        raise SuiteError(f"model '{model_id}': {path.name} is empty. Copy or download the folder again.")


def json_object(path: Path, model_id: str) -> dict[str, Any]:
    """What a file holds.

    Raises:
        SuiteError: It is empty, a pointer, or no JSON object.
    """
    check_real(path, model_id)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SuiteError(
            f"model '{model_id}': {path.name} cannot be read ({in_a_line(error)}). Copy it again."
        ) from error
    if not isinstance(value, dict):
        raise SuiteError(f"model '{model_id}': {path.name} holds no JSON object. Copy it again.")
    return value
