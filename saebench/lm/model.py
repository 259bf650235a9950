"""A language model as the harness uses it: text to ids, activations at hookpoints, losses under edits, samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench.api.errors import SuiteError
from saebench.lm.facts import ModelFacts, describe_model, facts_of, plugin_model, state_digest
from saebench.lm.folder.loading import load_weights, read_config
from saebench.lm.folder.tokenizers import check_tokenizer, first_id, read_tokenizer
from saebench.lm.folder.weights import model_folder
from saebench.lm.hf import cache_switch, token_ids
from saebench.lm.sampling import sample
from saebench.lm.splicing import CleanPass, Splicer
from saebench.lm.trace import read_output

if TYPE_CHECKING:
    from saebench.host import Catalog

FORWARD_TOKENS = 4096
"""Tokens of one forward without logits. Fixed, so that results do not depend on the machine's memory."""
LOGIT_VALUES = 1 << 25
"""Logits of one forward at most."""

Edit = Callable[[Tensor], Tensor] | None


class _Stop(Exception):
    """Raised by the deepest hook: nothing behind it needs to run."""


@dataclass(frozen=True)
class PositionLosses:
    """Losses of one batch. `mask [S, T]` marks the B positions that count, row by row; `ce` and `kl` hold `[B]` by edit.

    `ce` has the key `clean` as well.
    """

    mask: Tensor
    ce: Mapping[str, Tensor]
    kl: Mapping[str, Tensor]


class LanguageModel:
    """A transformers model with its tokenizer: `saebench.api.TextModel`, and more for the harness.

    In eval mode, without gradients, in float32.

    Attributes:
        facts: What is known of it at plan time.
        bos_id: First token of every sequence. A model without a BOS of its own starts with its EOS (as GPT-2 does) or CLS.
        eos_id: Document end, or None.
        special_ids: BOS, EOS, PAD and every other special token but UNK: left out of activations in training and scoring.
        vocab_size: Ids that the tokenizer knows; the model's own table may be padded beyond.
        context: Longest sequence it takes.
    """

    def __init__(
        self, model: torch.nn.Module, tokenizer: Any, facts: ModelFacts, device: str | torch.device = "cpu"
    ) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.facts = facts
        self.device = torch.device(device)
        self.eos_id: int | None = _first(tokenizer.eos_token_id, getattr(tokenizer, "sep_token_id", None))
        check_tokenizer(tokenizer, facts.vocab_size, facts.id)
        bos = first_id(tokenizer)
        assert bos is not None
        self.bos_id: int = bos
        unknown = getattr(tokenizer, "unk_token_id", None)
        ends = {token for token in (self.bos_id, self.eos_id, tokenizer.pad_token_id) if token is not None}
        self.special_ids: frozenset[int] = frozenset((set(tokenizer.all_special_ids) - {unknown}) | ends)
        self.vocab_size = min(len(tokenizer), facts.vocab_size)
        self.context = facts.context_limit or 2048
        size = max(facts.vocab_size, max(self.special_ids) + 1)
        self._special = torch.zeros(size, dtype=torch.bool)
        self._special[list(self.special_ids)] = True
        self._special = self._special.to(self.device)
        self._splicers: dict[str, Splicer] = {}

    @classmethod
    def load(
        cls,
        model_id: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        *,
        catalog: Catalog | None = None,
        allow_unused: Sequence[str] = (),
    ) -> LanguageModel:
        """Loads weights and tokenizer of a built-in id, a folder, a hub id, or what a plugin makes of the id.

        `allow_unused` are patterns of tensors that may stay unused (`load.allow_unused` of a suite).

        Raises:
            SuiteError: It is no usable model.
        """
        own = plugin_model(model_id, revision, catalog)
        if own is not None:
            facts = facts_of(own, own.config, model_id=model_id, revision=revision, model_digest=state_digest(own))
            return cls(own, own.tokenizer, facts, device)
        folder = model_folder(model_id, revision)
        facts = describe_model(model_id, revision)
        facts.check_loading(allow_unused)
        assert facts.weights is not None
        model = load_weights(read_config(folder, model_id), facts.kind, facts.weights, model_id)
        return cls(model, read_tokenizer(folder, model_id), facts, device)

    # --- text ---------------------------------------------------------------------------------------------------------

    @property
    def causal(self) -> bool:
        """Whether it predicts next tokens."""
        return self.facts.causal

    @property
    def forward_flops_per_token(self) -> int:
        """Work of a whole forward, a token."""
        return self.facts.forward_flops_per_token()

    def encode(self, text: str) -> list[int]:
        """Token ids of the text alone, without special tokens."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text. Words in the text that look like special tokens are text.

        Raises:
            SuiteError: The tokenizer gave an id that the model has no row for.
        """
        ids = token_ids(self.tokenizer, texts)
        largest = max((max(row) for row in ids if row), default=0)
        if largest >= self.facts.vocab_size:
            raise SuiteError(
                f"model '{self.facts.id}': the text holds {self.tokenizer.convert_ids_to_tokens(largest)!r}, to which its tokenizer gives id {largest}, but the embedding has "
                f"{self.facts.vocab_size} rows. Take the tokenizer that the model was trained with."
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        text: str = self.tokenizer.decode(
            [int(token) for token in ids if int(token) not in self.special_ids], clean_up_tokenization_spaces=False
        )
        return text

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Each token as readable text of its own."""
        return [self.tokenizer.decode([int(token)], clean_up_tokenization_spaces=False) for token in ids]

    def special_mask(self, ids: Tensor) -> Tensor:
        """True where a token is special; shape of `ids`."""
        return self._special.to(ids.device)[ids]

    def scored_mask(self, ids: Tensor) -> Tensor:
        """`[S, T]` True where a next-token loss counts: neither the token nor the next one is special."""
        ordinary = ~self.special_mask(ids)
        mask = torch.zeros_like(ordinary)
        mask[:, :-1] = ordinary[:, :-1] & ordinary[:, 1:]
        return mask

    # --- forwards -----------------------------------------------------------------------------------------------------

    def rows_per_forward(self, length: int, *, logits: bool = False) -> int:
        """Sequences of `length` tokens that one forward takes."""
        tokens = min(FORWARD_TOKENS, LOGIT_VALUES // max(1, self.facts.vocab_size)) if logits else FORWARD_TOKENS
        return max(1, tokens // length)

    def run(self, ids: Tensor, **arguments: Any) -> Any:
        """One forward without a cache."""
        with torch.no_grad():
            return self.model(input_ids=ids.to(self.device), **cache_switch(self.model, False), **arguments)

    def activations(self, ids: Tensor, hookpoint: str) -> Tensor:
        """`[S, T, d]` float32 output of the module at `hookpoint` on `ids [S, T]`; nothing behind it runs."""
        return self.activations_at(ids, [hookpoint])[hookpoint]

    def activations_at(self, ids: Tensor, hookpoints: Sequence[str], **arguments: Any) -> dict[str, Tensor]:
        """`activations` of several hookpoints in one forward, which stops at the deepest."""
        found: dict[str, Tensor] = {}
        wanted = set(hookpoints)

        def hook_for(path: str) -> Callable[..., None]:
            def hook(_module: torch.nn.Module, _args: Any, output: Any) -> None:
                tensor = read_output(output, ids, f"hookpoint '{path}' of model '{self.facts.id}'")
                last = len(found) + 1 == len(wanted)
                # what runs on may write into it: some models add to the residual stream in place
                found.setdefault(path, tensor.detach().float() if last else tensor.detach().clone().float())
                if len(found) == len(wanted):
                    raise _Stop

            return hook

        with self.hooks({path: hook_for(path) for path in hookpoints}), suppress(_Stop):
            self.run(ids, **arguments)
        return found

    @contextmanager
    def hooks(self, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
        """Forward hooks by module path, removed at the end whatever happens."""
        handles = []
        try:
            for path, hook in hooks.items():
                handles.append(self.model.get_submodule(path).register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()

    # --- losses under edits -------------------------------------------------------------------------------------------

    def splicer(self, hookpoint: str) -> Splicer:
        """Clean and edited forwards at one hookpoint."""
        if not self.causal:
            raise SuiteError(f"model '{self.facts.id}': {self.facts.no_losses}.")
        if hookpoint not in self._splicers:
            self._splicers[hookpoint] = Splicer(self, hookpoint)
        return self._splicers[hookpoint]

    def losses(self, ids: Tensor, hookpoint: str, edits: Mapping[str, Edit]) -> PositionLosses:
        """Next-token cross-entropy and KL(clean || edited), in nats, of `ids [S, T]`.

        An edit maps the hookpoint's output `[S, T, d]` to what stands there instead (None leaves it as it is). Positions of
        special tokens keep their output under every edit, zeroing included: the floor and the SAE are spliced in alike.
        """
        splicer = self.splicer(hookpoint)
        clean: CleanPass = splicer.clean(ids)
        ce, kl = {"clean": clean.ce}, {}
        for name, edit in edits.items():
            ce[name], kl[name] = splicer.spliced(clean, edit(clean.x) if edit else clean.x)
        return PositionLosses(clean.scored, ce, kl)

    # --- for dataset plugins ------------------------------------------------------------------------------------------

    def sample(
        self, n_sequences: int, length: int, *, temperature: float, top_p: float, generator: torch.Generator
    ) -> Tensor:
        """`[n_sequences, length]` int64 from BOS; see `saebench.lm.sampling`."""
        return sample(self, n_sequences, length, temperature=temperature, top_p=top_p, generator=generator)

    def hidden_mean(self, texts: Sequence[str]) -> Tensor:
        """`[len(texts), d_model]` mean output of the last block over each text's tokens (cut to the context), BOS left out.

        A text without tokens gives zeros.
        """
        blocks, n_layers = self.facts.trace.blocks, self.facts.n_layers
        if blocks is None:
            raise SuiteError(
                f"model '{self.facts.id}' has no list of blocks, so it gives no dense embedding. Use retriever: bm25."
            )
        path = f"{blocks}.{n_layers - 1}"
        length = min(self.context, 512)
        rows = [ids[: length - 1] for ids in self.encode_many(texts)]
        out = torch.zeros(len(rows), self.facts.d_model)
        order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
        step = self.rows_per_forward(length)
        fill = self.eos_id if self.eos_id is not None else self.bos_id
        for start in range(0, len(order), step):
            chosen = order[start : start + step]
            longest = 1 + max(len(rows[index]) for index in chosen)
            ids = torch.full((len(chosen), longest), fill)
            real = torch.zeros(len(chosen), longest, dtype=torch.bool)
            for row, index in enumerate(chosen):
                ids[row, : 1 + len(rows[index])] = torch.tensor([self.bos_id, *rows[index]])
                real[row, 1 : 1 + len(rows[index])] = True
            # Right padding is invisible to earlier tokens of a decoder; an encoder must be told.
            seen = real.clone()
            seen[:, 0] = True
            masks = {} if self.causal else {"attention_mask": seen.long().to(self.device)}
            x = self.activations_at(ids, [path], **masks)[path].cpu()
            out[chosen] = (x * real[..., None]).sum(1) / real.sum(1).clamp_min(1)[:, None]
        return out


def _first(*ids: int | None) -> int | None:
    return next((token for token in ids if token is not None), None)
