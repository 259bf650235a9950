"""What is known of a language model at plan time: sizes, digest, places to read, and how its files load.

No weight is loaded: the model is built from its config on the meta device, where a forward costs nothing.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saebench.api.errors import SuiteError
from saebench.cells.load import PLAIN, LoadSettings
from saebench.lm import hf
from saebench.lm.folder import loading, notes
from saebench.lm.folder.locate import BUILT_IN, lacking, model_folder
from saebench.lm.folder.model_config import Kind, cache_values, context_limit, read_config
from saebench.lm.folder.tensor_fit import Loading, fit, refuse_unused
from saebench.lm.folder.tokenizers import check_tokenizer, read_tokenizer, tokens_in
from saebench.lm.folder.weights import WeightFiles, model_digest, stored_tensors, weight_files
from saebench.lm.hookpoints import Hookpoint, default_hookpoint, find_hookpoint
from saebench.lm.trace import Trace, trace

if TYPE_CHECKING:
    from saebench.host import Catalog


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without loading its weights.

    Attributes:
        id, revision: As given.
        digest: SHA-256 over config, tokenizer and weight files.
        n_parameters: Learned values, tied ones once.
        context_limit: Longest sequence it takes, or None where it has no limit.
        kind: Whether it predicts next tokens.
        n_layers: Blocks.
        d_model: Width of the residual stream (output of the blocks, or `hidden_size` where there are none).
        vocab_size: Rows of its embedding.
        cache_values: Values that its key-value cache keeps of each token.
        trace: Modules that run.
        loading, weights: How its files load, and which they are; None for a model that a plugin made, and where the
            weights are not here.
        folder: Where its files are; None for a model that a plugin made.
        lacks: `weights`, `tokenizer`: what is not in the folder. Such a model can be planned with, and not run.
        load: How its weights are loaded.
        not_usable: Why this machine cannot load it so; None where it can, or where that was not asked.
    """

    id: str
    revision: str | None
    digest: str
    n_parameters: int
    context_limit: int | None
    kind: Kind
    n_layers: int
    d_model: int
    vocab_size: int
    cache_values: int
    trace: Trace
    loading: Loading | None = None
    weights: WeightFiles | None = None
    folder: Path | None = None
    lacks: tuple[str, ...] = ()
    load: LoadSettings = PLAIN
    not_usable: str | None = None

    @property
    def causal(self) -> bool:
        """Whether it predicts next tokens."""
        return self.kind == "decoder"

    @property
    def no_losses(self) -> str:
        """Why it has no losses, where it has none."""
        if self.kind == "headless":
            return "it was saved without the layer that predicts tokens, so it has no losses"
        return "it is an encoder: it predicts no next token, so it has no losses"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how its files were read, one sentence each."""
        found = [notes.of_absence(self.lacks, self.n_parameters)] if self.lacks else []
        if self.load.trust_remote_code and self.folder is not None:
            found.append(notes.of_code(self.folder))
        if self.not_usable is not None:
            found.append(f"this machine cannot run it as the suite says: {self.not_usable}")
        if self.loading is not None and self.weights is not None:
            found += notes.of_files(self.kind, self.loading, self.weights)
        return tuple(found)

    def check_loading(self, allow_unused: Sequence[str] = ()) -> None:
        """Refuses a model that leaves tensors of its files unused, but for those that a pattern allows.

        Raises:
            SuiteError: With the first of them, and how to insist.
        """
        if self.loading is not None:
            refuse_unused(self.loading, self.weights, allow_unused, self.id)

    @property
    def default_hookpoint(self) -> str:
        """The middle block, or a part of it where its own output cannot be read."""
        return default_hookpoint(self.trace)

    def tokens_in(self, text: str) -> int | None:
        """Tokens of a text, without special ones: about, without a tokenizer; None where it cannot be asked."""
        if "tokenizer" in self.lacks:
            return -(-len(text) // notes.CHARACTERS_A_TOKEN)
        try:
            folder = self.folder or model_folder(self.id, self.revision)
            return tokens_in(folder, text, trust=self.load.trust_remote_code)
        except SuiteError:
            return None  # a model of a plugin has no folder

    def hookpoint(self, name: str) -> Hookpoint:
        """The place that `layers.N`, `layers.N.rest` or a dotted module path means.

        Raises:
            SuiteError: It does not exist (with the range, or the nearest names), never runs, or has no
                `[.., tokens, width]` output.
        """
        return find_hookpoint(self.trace, name, self.id)

    def forward_flops_per_token(self, path: str | None = None) -> int:
        """Work of a forward up to and including the module at `path`, or of the whole model: two FLOPs a weight."""
        return self.trace.ran[path or ""].flops_per_token


def facts_of(
    model: torch.nn.Module,
    config: Any,
    *,
    model_id: str,
    revision: str | None,
    model_digest: str,
    kind: Kind | None = None,
    traced: Trace | None = None,
    found: Loading | None = None,
    weights: WeightFiles | None = None,
    folder: Path | None = None,
    lacks: tuple[str, ...] = (),
) -> ModelFacts:
    """Facts of a model that is there (meta or real)."""
    kind = kind or ("decoder" if hf.is_decoder(config) else "encoder")
    traced = traced or trace(model, causal=kind != "encoder")
    block = traced.ran.get(f"{traced.blocks}.0") if traced.blocks else None
    text = hf.text_config(config)
    width = block.shape[-1] if block and block.shape else int(getattr(text, "hidden_size", 0))
    table = getattr(getattr(model, "get_input_embeddings", lambda: None)(), "weight", None)
    return ModelFacts(
        id=model_id,
        revision=revision,
        digest=model_digest,
        n_parameters=traced.n_parameters,
        context_limit=context_limit(config),
        kind=kind,
        n_layers=traced.n_layers,
        d_model=width,
        vocab_size=int(text.vocab_size) if table is None else len(table),
        cache_values=cache_values(config, traced.n_layers, width),
        trace=traced,
        loading=found,
        weights=weights,
        folder=folder,
        lacks=lacks,
    )


@functools.lru_cache(maxsize=64)
def _describe_folder(
    folder: Path,
    stamp: tuple[tuple[str, int, int], ...],
    model_id: str,
    revision: str | None,
    config_alone: bool,
    trust: bool,
) -> ModelFacts:
    # the rest of the stamp decides only whether an earlier answer still holds
    lacks = lacking([name for name, *_ in stamp]) if config_alone else ()
    config = read_config(folder, model_id, trust=trust)
    weights = None if "weights" in lacks else weight_files(folder, model_id)
    named = getattr(config, "transformers_weights", None)
    if weights is not None and named not in (None, weights.names):
        raise SuiteError(
            f"model '{model_id}': config.json names {named!r} as its weights (transformers_weights), but "
            f"{weights.names} is what is read. Remove the key, or rename the file."
        )
    kind: Kind = "decoder" if hf.is_decoder(config) else "encoder"
    found = None
    if weights is None:
        model = loading.build(config, kind, model_id, trust=trust)
    else:
        stored = stored_tensors(weights, model_id)
        model = loading.build(config, kind, model_id, trust=trust)
        found = fit(model, config, kind, stored, weights, model_id)
        if found.kind != kind:  # without its head it is read by another class
            kind = found.kind
            model = loading.build(config, kind, model_id, trust=trust)
            found = fit(model, config, kind, stored, weights, model_id)
    try:
        traced = trace(model, causal=kind != "encoder")
    except Exception:  # noqa: BLE001 - a model's own code
        # Some classes cannot run on the meta device: then the real weights answer, at the price of loading them.
        if weights is None:
            traced = loading.traced_on_stand_ins(config, kind, model_id, trust=trust)
        else:
            model = loading.load_weights(config, kind, weights, model_id, LoadSettings(trust_remote_code=trust))
            traced = loading.traced(model, kind, model_id)
    found_digest = model_digest(folder, weights, whole=not lacks, code=trust)
    facts = facts_of(
        model, config, model_id=model_id, revision=revision, model_digest=found_digest, kind=kind, traced=traced,
        found=found, weights=weights, folder=folder, lacks=lacks,
    )  # fmt: skip
    if "tokenizer" not in lacks:
        check_tokenizer(read_tokenizer(folder, model_id, trust=trust), facts.vocab_size, model_id)
    return facts


def describe_model(
    model_id: str,
    revision: str | None = None,
    *,
    catalog: Catalog | None = None,
    config_alone: bool = False,
    load: LoadSettings = PLAIN,
) -> ModelFacts:
    """Facts of a model: built-in id, folder, or hub id with revision; or whatever a plugin loads for that id.

    With `config_alone` its weights and its tokenizer may be missing: enough for a plan, and not for a run.

    Raises:
        SuiteError: It is no usable model; one line with what was found and what to do.
    """
    own = plugin_model(model_id, revision, catalog, load)
    if own is not None:
        return facts_of(own, own.config, model_id=model_id, revision=revision, model_digest=state_digest(own))
    code = load.trust_remote_code
    folder = model_folder(model_id, revision, config_alone=config_alone, code=code)
    stamp = tuple(
        sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file())
    )
    facts = _describe_folder(folder.resolve(), stamp, model_id, revision, config_alone, code)
    return replace(facts, digest=load.digest_with(facts.digest), load=load)


def plugin_model(
    model_id: str, revision: str | None, catalog: Catalog | None, load: LoadSettings = PLAIN
) -> Any | None:
    """A plugin's answer to `saebench_load_model`, or None.

    Raises:
        SuiteError: The suite says how its weights are loaded, which is the plugin's own to decide.
    """
    if catalog is None or model_id in BUILT_IN:
        return None
    own = catalog.load_model({"id": model_id, "revision": revision})
    if own is not None and (asked := load.to_json()):
        raise SuiteError(
            f"model '{model_id}' is loaded by a plugin, which alone decides {', '.join(sorted(asked))}. "
            "Leave what the suite says of it out."
        )
    return own


def state_digest(model: torch.nn.Module) -> str:
    """SHA-256 over names and values of all weights: the digest of a model that a plugin made."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
