"""Language models at plan time: which folder an id means, whether it can be used, and what stands at its hookpoints.

No weight is loaded: the model is built from its config on the meta device, where a forward costs nothing.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saebench.api.errors import SuiteError
from saebench.artifacts import digest, file_digest
from saebench.data.trace import Trace, trace

if TYPE_CHECKING:
    from saebench.host import Catalog

BUILT_IN = {"docs-lm": Path(__file__).parent / "docs_lm"}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
)
_DECIDING = re.compile(
    r"config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt|.*\.model"
)
_SHORT = re.compile(r"layers\.(-?\d+)((?:\.\w+)*)")


@dataclass(frozen=True)
class Hookpoint:
    """A place in a model: dotted module path, the name the suite gave it, and the width of its output."""

    path: str
    name: str
    d: int


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without loading its weights.

    Attributes:
        id, revision: As given.
        digest: SHA-256 over config, tokenizer and weight files.
        n_parameters: Learned values, tied ones once.
        context_limit: Longest sequence it takes, or None where it has no limit.
        causal: Whether it predicts next tokens; an encoder does not.
        n_layers: Blocks.
        d_model: Width of the residual stream (output of the blocks, or `hidden_size` where there are none).
        vocab_size: Rows of its embedding.
        trace: Modules that run.
    """

    id: str
    revision: str | None
    digest: str
    n_parameters: int
    context_limit: int | None
    causal: bool
    n_layers: int
    d_model: int
    vocab_size: int
    trace: Trace

    def hookpoint(self, name: str) -> Hookpoint:
        """The place that `layers.N`, `layers.N.rest` or a dotted module path means.

        Raises:
            SuiteError: It does not exist (with the range, or the nearest names), never runs, or has no `[.., tokens, width]` output.
        """
        path = name
        short = _SHORT.fullmatch(name)
        if name not in self.trace.modules and short and self.trace.blocks:
            index = int(short[1])
            if not 0 <= index < self.n_layers:
                raise SuiteError(
                    f"model '{self.id}' has no hookpoint '{name}': its {self.n_layers} blocks are layers.0 to layers.{self.n_layers - 1}. Use one of these."
                )
            path = f"{self.trace.blocks}.{index}{short[2]}"
        if path not in self.trace.modules:
            known = sorted(self._short_names() | (self.trace.ran.keys() - {""}))
            near = difflib.get_close_matches(name, known, n=3) or difflib.get_close_matches(path, known, n=3)
            hint = f"Did you mean {' or '.join(repr(word) for word in near)}? " if near else ""
            layers = f"layers.0 to layers.{self.n_layers - 1}, or " if self.n_layers else ""
            raise SuiteError(
                f"model '{self.id}' has no hookpoint '{name}'. {hint}Allowed: {layers}a dotted module path."
            )
        ran = self.trace.ran.get(path)
        if ran is None:
            inner = [
                other
                for other in self.trace.ran
                if other.startswith(f"{path}.") and other.count(".") == path.count(".") + 1
            ]
            hint = (
                f"Choose one of its parts, such as '{inner[0]}'."
                if inner
                else "Choose a module that runs, such as 'layers.0'."
            )
            raise SuiteError(
                f"hookpoint '{name}' of model '{self.id}' is a container that is never called itself. {hint}"
            )
        if ran.shape is None or len(ran.shape) != 3 or ran.shape[:2] != self.trace.tokens:
            raise SuiteError(
                f"hookpoint '{name}' of model '{self.id}' puts out {list(ran.shape) if ran.shape else 'no tensor'}; "
                "an SAE needs [sequences, tokens, width]. Choose a block ('layers.0'), an attention or an MLP module."
            )
        if ran.calls != 1:
            raise SuiteError(
                f"hookpoint '{name}' of model '{self.id}' runs {ran.calls} times in one forward; an SAE needs a place that runs once."
            )
        return Hookpoint(path, name, ran.shape[2])

    def forward_flops_per_token(self, path: str | None = None) -> int:
        """Work of a forward up to and including the module at `path`, or of the whole model: two FLOPs a weight used."""
        return self.trace.ran[path or ""].flops_per_token

    def _short_names(self) -> set[str]:
        return {f"layers.{index}" for index in range(self.n_layers)}


def model_folder(model_id: str, revision: str | None = None) -> Path:
    """The folder behind an id: built in, a folder, or a snapshot from the hub.

    Raises:
        SuiteError: No such folder, no model in it, or the hub cannot be reached.
    """
    if model_id in BUILT_IN:
        return _checked(BUILT_IN[model_id], model_id)
    path = Path(model_id).expanduser()
    if path.is_dir():
        return _checked(path, model_id)
    if path.exists():
        raise SuiteError(
            f"model '{model_id}' is a file; a model is a folder (config.json, weights, tokenizer), a hub id or {_built_in()}."
        )
    if model_id.startswith(("/", ".", "~")) or model_id.count("/") > 1 or "\\" in model_id:
        siblings = [child.name for child in path.parent.iterdir() if child.is_dir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        hint = f"Did you mean '{path.parent / near[0]}'? " if near else ""
        raise SuiteError(
            f"model '{model_id}': there is no such folder. {hint}Allowed: a model folder, a hub id or {_built_in()}."
        )
    return _checked(_from_hub(model_id, revision), model_id)


def _built_in() -> str:
    return "the built-in " + ", ".join(repr(name) for name in BUILT_IN)


def _from_hub(model_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    wanted = ["*.json", "*.txt", "*.model"]
    disable_progress_bars()
    try:
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=[*wanted, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(
                snapshot_download(model_id, revision=revision, allow_patterns=[*wanted, "pytorch_model*.bin"])
            )
    except Exception as error:
        near = difflib.get_close_matches(model_id, BUILT_IN, n=1)
        hint = f"Did you mean the built-in '{near[0]}'? " if near else ""
        raise SuiteError(
            f"model '{model_id}'{f' at revision {revision}' if revision else ''}: {hint}no folder of that name is here, and the hub did not give it "
            f"({_line(error)}). Offline, run `hf download {model_id} --local-dir FOLDER` on a connected machine, bring the folder here, and write its path as the id."
        ) from error
    finally:
        enable_progress_bars()
    return folder


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _checked(folder: Path, model_id: str) -> Path:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = []
    if "config.json" not in names:
        missing.append("config.json")
    if not any(name.endswith(".safetensors") or re.fullmatch(r"pytorch_model.*\.bin", name) for name in names):
        missing.append("weights (*.safetensors)")
    if not names & set(_TOKENIZER_FILES):
        missing.append("a tokenizer (tokenizer.json)")
    if missing:
        found = ", ".join(sorted(names)[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"
        raise SuiteError(
            f"model '{model_id}' is no transformers model folder: {' and '.join(missing)} missing, found {found}. "
            "Give a folder that `save_pretrained` of both the model and its tokenizer wrote."
        )
    return folder


def model_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the files that decide what the model computes."""
    files = [path for path in folder.iterdir() if path.is_file()]
    weights = [path for path in files if path.suffix == ".safetensors"] or [
        path for path in files if re.fullmatch(r"pytorch_model.*\.bin", path.name)
    ]
    deciding = [path for path in files if _DECIDING.fullmatch(path.name)] + weights
    return digest([[path.name, file_digest(path)] for path in sorted(set(deciding))])


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' own log lines and progress bars, and puts its settings back."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def is_causal(config: Any) -> bool:
    """True for a decoder that predicts next tokens, told by the class its checkpoint was saved from."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if not hasattr(config, "model_type"):
        return True  # a plugin's own model: the hook asks for a language model
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    names = getattr(config, "architectures", None) or []
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    return causal is not None and (causal in names if names else True) and not encoder


def read_config(folder: Path, model_id: str) -> Any:
    """The model's config. Code that a model brings along is never run.

    Raises:
        SuiteError: Broken, of a class that transformers does not have, or an encoder-decoder.
    """
    from transformers import AutoConfig

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise SuiteError(
            f"model '{model_id}': config.json cannot be used ({_line(error)}). saebench runs transformers' own classes only, never code that a model brings along."
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise SuiteError(
            f"model '{model_id}' is an encoder-decoder ({config.model_type}); allowed are decoders and encoders."
        )
    return config


def auto_class(config: Any) -> Any:
    """`AutoModelForCausalLM` for a decoder, `AutoModel` for an encoder."""
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if is_causal(config) else AutoModel


def context_limit(config: Any) -> int | None:
    """Longest sequence by the config, or None."""
    kind = getattr(config, "model_type", "")
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            # RoBERTa's positions start behind its padding id.
            padded = kind in {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet"}
            return limit - 2 if padded else limit
    return None


def facts_of(
    model: torch.nn.Module,
    config: Any,
    *,
    model_id: str,
    revision: str | None,
    model_digest: str,
    traced: Trace | None = None,
) -> ModelFacts:
    """Facts of a model that is there (meta or real)."""
    causal = is_causal(config)
    found = traced or trace(model, causal=causal)
    block = found.ran.get(f"{found.blocks}.0") if found.blocks else None
    return ModelFacts(
        id=model_id,
        revision=revision,
        digest=model_digest,
        n_parameters=found.n_parameters,
        context_limit=context_limit(config),
        causal=causal,
        n_layers=found.n_layers,
        d_model=block.shape[-1] if block and block.shape else int(getattr(config, "hidden_size", 0)),
        vocab_size=int(config.vocab_size),
        trace=found,
    )


@functools.lru_cache(maxsize=64)
def _describe_folder(
    folder: Path, stamp: tuple[tuple[str, int, int], ...], model_id: str, revision: str | None
) -> ModelFacts:
    del stamp  # decides only whether an earlier answer still holds
    config = read_config(folder, model_id)
    causal = is_causal(config)
    try:
        with quiet(), torch.device("meta"):
            model = auto_class(config).from_config(config).eval()
        traced = trace(model, causal=causal)
    except Exception:
        # Some classes cannot run without values: then the real weights answer, at the price of loading them.
        model = load_weights(folder, config, model_id)
        traced = trace(model, causal=causal)
    return facts_of(
        model, config, model_id=model_id, revision=revision, model_digest=model_digest(folder), traced=traced
    )


def load_weights(folder: Path, config: Any, model_id: str) -> torch.nn.Module:
    """The model in float32 and eval mode, on the CPU.

    Raises:
        SuiteError: Weights are damaged, or some are missing.
    """
    try:
        with quiet():
            model, info = auto_class(config).from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:
        raise SuiteError(
            f"model '{model_id}': its weights cannot be loaded ({_line(error)}). Copy or download the folder again."
        ) from error
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise SuiteError(
            f"model '{model_id}': {len(missing)} tensors that {type(model).__name__} needs are not in its weight files, first '{missing[0]}'. Copy or download the folder again."
        )
    module: torch.nn.Module = model.eval().requires_grad_(False)
    return module


def describe_model(model_id: str, revision: str | None = None, *, catalog: Catalog | None = None) -> ModelFacts:
    """Facts of a model: built-in id, folder, or hub id with revision; or whatever a plugin loads for that id.

    Raises:
        SuiteError: It is no usable model; one line with what was found and what to do.
    """
    own = plugin_model(model_id, revision, catalog)
    if own is not None:
        return facts_of(own, own.config, model_id=model_id, revision=revision, model_digest=state_digest(own))
    folder = model_folder(model_id, revision)
    stamp = tuple(
        sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file())
    )
    return _describe_folder(folder.resolve(), stamp, model_id, revision)


def plugin_model(model_id: str, revision: str | None, catalog: Catalog | None) -> Any | None:
    """A plugin's answer to `saebench_load_model`, or None."""
    return (
        catalog.load_model({"id": model_id, "revision": revision})
        if catalog is not None and model_id not in BUILT_IN
        else None
    )


def state_digest(model: torch.nn.Module) -> str:
    """SHA-256 over names and values of all weights: the digest of a model that a plugin made."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


class ModelBook:
    """Looks models up for the planner (`plan.facts.ModelFactsSource`), asking plugins first."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        self._catalog = catalog

    def model(self, model_id: str, revision: str | None = None, /) -> ModelFacts:
        """`describe_model` with this book's catalog."""
        return describe_model(model_id, revision, catalog=self._catalog)
