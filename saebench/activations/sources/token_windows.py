"""Token windows of a dataset: its documents tokenised and packed, or the sequences that it generates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench.activations.sources.validation_split import ASKED, HeldOutPart, part_of
from saebench.activations.token_store import Windows
from saebench.activations.tokens import pack_numbered, sequence_digest, shuffled, tokenised

if TYPE_CHECKING:
    from saebench.activations.sources.context import Context, Meter
    from saebench.api.splits import Split
    from saebench.cells.cell import DatasetUse, ModelUse
    from saebench.lm.model import LanguageModel


def token_windows(
    context: Context,
    use: DatasetUse,
    model: ModelUse,
    split: Split,
    n_tokens: int,
    seed: int,
    meter: Meter,
    part: HeldOutPart | None = None,
) -> Windows:
    """Windows of a text or generated dataset that hold `n_tokens` non-special tokens, or all there are.

    With `part`, only documents (or sequences) that belong to it.
    """
    lm = context.model(model)
    opened = context.texts(use, model, seed, meter)
    documents: dict[str, int] = {}
    if use.kind == "generated":
        windows = _generated(opened, lm, split, n_tokens, model.context, documents, part)
    else:
        found = (text for text in opened.documents(split) if part is None or part_of(text.digest) == part)
        texts = tokenised(shuffled(found, seed), lm.encode_many, documents)
        packed = pack_numbered(texts, context=model.context, bos_id=lm.bos_id)
        windows = ((torch.tensor(ids), torch.tensor(numbers)) for ids, numbers in packed)
    name = f"{split} part" if part is None else f"{part} part (of what is {split})"
    empty = f"dataset '{use.name}' (plugin {use.plugin}): its {name} does not fill one window of {model.context} tokens"
    return Windows(opened, windows, lm, n_tokens, documents, empty)


def as_window(sequence: Tensor, length: int, lm: LanguageModel) -> Tensor:
    """`[length]`: a sequence cut to it, or filled up with the end token."""
    window = torch.full((length,), lm.eos_id if lm.eos_id is not None else lm.bos_id)
    window[: min(length, len(sequence))] = sequence[:length]
    return window


def _generated(
    opened: Any,
    lm: LanguageModel,
    split: Split,
    n_tokens: int,
    length: int,
    numbers: dict[str, int],
    part: HeldOutPart | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    for sequence in opened.sequences(split, n_tokens if part is None else ASKED[part] * n_tokens):
        window = as_window(sequence, length, lm)
        code = sequence_digest(window)
        if part is None or part_of(code) == part:
            yield window, torch.full_like(window, numbers.setdefault(code, len(numbers)))
