"""Sampling sequences from a language model: our own batched loop, with a cache and an explicit generator.

Uniform numbers are drawn on the CPU before a batch starts, so that a row's randomness depends on neither the other rows
nor on when they end, and tokens are chosen by inverse cumulative distribution. Equal generator states give equal
sequences, bit for bit, on one device and thread count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench import console
from saebench.api.errors import SuiteError
from saebench.base.heap import give_back
from saebench.lm.hf import cache_argument, cache_of, cache_switch

if TYPE_CHECKING:
    from saebench.lm.loaded import LoadedModel

SAMPLE_ROWS = 256
"""Sequences sampled together. Fixed: another number would be another stream."""


def next_probabilities(logits: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """`[rows, vocabulary]` float64 probabilities of the next token.

    Nucleus: the smallest set of most probable tokens whose probabilities sum to at least `top_p`, renormalised
    (Holtzman et al. 2020); ties go to the lowest id.
    """
    probabilities = torch.softmax(logits.float() / temperature, dim=-1).double()
    if top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = _running_sum(ordered) - ordered
        ordered = torch.where(before < top_p, ordered, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def choose(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """`[rows]` ids by inverse cumulative distribution from `uniform [rows]` in [0, 1)."""
    cumulative = _running_sum(probabilities)
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).clamp_max(
        probabilities.shape[-1] - 1
    )[:, 0]


def _running_sum(probabilities: Tensor) -> Tensor:
    """`[rows, n]` float64: in each row the sum up to and with each entry.

    Elsewhere than on the CPU torch has no deterministic running sum of floats, and raises in a run. It has one of
    integers, so probabilities are counted in units of 2^-52, which float64 holds exactly.
    """
    if probabilities.device.type == "cpu":
        return probabilities.cumsum(-1)
    return (probabilities * 2.0**52).round().long().cumsum(-1).double() * 2.0**-52


def sample(
    lm: LoadedModel,
    n_sequences: int,
    length: int,
    *,
    temperature: float,
    top_p: float,
    generator: torch.Generator,
    use_cache: bool = True,
) -> Tensor:
    """`[n_sequences, length]` int64 on the CPU: BOS, then sampled tokens; behind an EOS everything is EOS.

    Args:
        lm: A causal model.
        n_sequences: Rows.
        length: Tokens a row, BOS included.
        temperature: Above 0; 1 samples the model's own distribution.
        top_p: In (0, 1]; 1 cuts nothing.
        generator: A CPU generator; it moves on by `rows * (length - 1)` numbers for each batch of rows.
        use_cache: False feeds whole prefixes again at each step: the slow reference.

    Raises:
        SuiteError: The model is an encoder, or takes no sequence of that length.
    """
    if not lm.causal:
        raise SuiteError(f"model '{lm.facts.id}' cannot be sampled: {lm.facts.no_losses}.")
    if lm.facts.context_limit is not None and length > lm.facts.context_limit:
        raise SuiteError(
            f"model '{lm.facts.id}' takes sequences of at most {lm.facts.context_limit} tokens, got {length}. "
            "Lower the context."
        )
    if not (temperature > 0 and 0 < top_p <= 1):
        raise SuiteError(f"sampling needs temperature > 0 and 0 < top_p <= 1, got {temperature} and {top_p}.")
    batches = []
    with console.phase("sampling", lm.facts.id, total=n_sequences * (length - 1), unit="tok") as bar:
        for start in range(0, n_sequences, SAMPLE_ROWS):
            rows = min(SAMPLE_ROWS, n_sequences - start)
            uniform = torch.rand(rows, max(0, length - 1), generator=generator, dtype=torch.float64)
            batches.append(_sample_rows(lm, uniform, length, temperature, top_p, use_cache, bar))
            give_back()  # a cache that grew token by token leaves a hole of every size behind
    return torch.cat(batches) if batches else torch.empty(0, length, dtype=torch.long)


def _sample_rows(
    lm: LoadedModel,
    uniform: Tensor,
    length: int,
    temperature: float,
    top_p: float,
    use_cache: bool,
    bar: console.Phase,
) -> Tensor:
    rows = len(uniform)
    uniform = uniform.to(lm.device)
    fill = lm.eos_id if lm.eos_id is not None else lm.bos_id
    ids = torch.full((rows, length), fill, device=lm.device)
    ids[:, 0] = lm.bos_id
    ended = torch.zeros(rows, dtype=torch.bool, device=lm.device)
    cache: Any = None
    with torch.no_grad():
        for position in range(1, length):
            bar.update(rows)
            if cache is not None:
                out = lm.model(input_ids=ids[:, position - 1 : position], **cache_argument(lm.model, cache))
            else:
                out = lm.model(input_ids=ids[:, :position], **cache_switch(lm.model, use_cache))
            cache = cache_of(lm.model, out) if use_cache else None
            logits = out.logits[:, -1, : lm.vocab_size].to(lm.device)
            probabilities = next_probabilities(logits, temperature=temperature, top_p=top_p)
            if bool(probabilities.isnan().any()):
                raise lm.not_finite("a logit")
            chosen = choose(probabilities, uniform[:, position - 1])
            ids[:, position] = torch.where(ended, fill, chosen)
            if lm.eos_id is not None:
                ended |= chosen == lm.eos_id
                if bool(ended.all()):
                    bar.update(rows * (length - 1 - position))
                    break
    return ids.cpu()
