"""A language model in memory: text to ids and back, masks of tokens, forwards, activations at hookpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from saebench.api.errors import SuiteError
from saebench.lm.facts import ModelFacts
from saebench.lm.folder.tokenizers import check_tokenizer, first_id
from saebench.lm.hf import cache_switch, token_ids
from saebench.lm.trace import read_output

FORWARD_TOKENS = 4096
"""Tokens of one forward without logits. Fixed, so that results do not depend on the machine's memory."""
LOGIT_VALUES = 1 << 25
"""Logits of one forward at most."""


class _Stop(Exception):
    """Raised by the deepest hook: nothing behind it needs to run."""


class LoadedModel:
    """A transformers model with its tokenizer, in eval mode, without gradients.

    The dtype of its weights and its forward is the suite's to choose; activations and losses leave as float32.

    Attributes:
        facts: What is known of it at plan time.
        bos_id: First token of every sequence. A model without a BOS of its own starts with its EOS (as GPT-2 does) or
            CLS.
        eos_id: Document end, or None.
        special_ids: BOS, EOS, PAD and every other special token but UNK: left out of activations in training and
            scoring.
        vocab_size: Ids that the tokenizer knows; the model's own table may be padded beyond.
        context: Longest sequence it takes.
    """

    def __init__(
        self, model: torch.nn.Module, tokenizer: Any, facts: ModelFacts, device: str | torch.device = "cpu"
    ) -> None:
        placed = model if facts.load.is_placed else model.to(device)
        self.model = placed.eval().requires_grad_(False)
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
        special = torch.zeros(size, dtype=torch.bool)
        special[list(self.special_ids)] = True
        self._special = {place: special.to(place) for place in (torch.device("cpu"), self.device)}

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
        """`encode` of each text. Text that resembles a special token is text.

        Raises:
            SuiteError: The tokenizer gave an id that the model has no row for.
        """
        ids = token_ids(self.tokenizer, texts)
        largest = max((max(row) for row in ids if row), default=0)
        if largest >= self.facts.vocab_size:
            raise SuiteError(
                f"model '{self.facts.id}': the text holds {self.tokenizer.convert_ids_to_tokens(largest)!r}, to which "
                f"its tokenizer gives id {largest}, but the embedding has "
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
        """True where a token is special; shape of `ids`, which lie on the CPU or on the model's device."""
        return self._special[ids.device if ids.device.type == "cpu" else self.device][ids]

    def loss_mask(self, ids: Tensor) -> Tensor:
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
        hooked = set(hookpoints)

        def hook_for(path: str) -> Callable[..., None]:
            def hook(_module: torch.nn.Module, _args: Any, output: Any) -> None:
                tensor = read_output(output, ids, f"hookpoint '{path}' of model '{self.facts.id}'")
                last = len(found) + 1 == len(hooked)
                # what runs on may write into it: some models add to the residual stream in place
                kept = tensor.detach() if last else tensor.detach().clone()
                found.setdefault(path, kept.to(self.device, torch.float32))
                if len(found) == len(hooked):
                    raise _Stop

            return hook

        with self.hooks({path: hook_for(path) for path in hookpoints}), suppress(_Stop):
            self.run(ids, **arguments)
        return found

    def not_finite(self, what: str) -> SuiteError:
        """The error for a value that is infinite or no number; float16 ends early."""
        advice = (
            " float16 ends at 65,504. Write dtype: bfloat16, which has float32's range."
            if self.facts.load.dtype == "float16"
            else ""
        )
        return SuiteError(f"model '{self.facts.id}' gave {what} that is not finite.{advice}")

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


def _first(*ids: int | None) -> int | None:
    return next((token for token in ids if token is not None), None)
