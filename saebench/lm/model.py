"""A language model as the harness uses it: losses with replaced activations, samples, embeddings of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench.api.errors import SuiteError
from saebench.cells.load import PLAIN, LoadSettings
from saebench.lm.facts import ModelFacts, describe_model, facts_of, plugin_model, state_digest
from saebench.lm.folder.loading import load_weights
from saebench.lm.folder.model_config import read_config
from saebench.lm.folder.tokenizers import read_tokenizer
from saebench.lm.folder.usable import refuse_not_usable
from saebench.lm.loaded import LoadedModel
from saebench.lm.sampling import sample
from saebench.lm.splicing import Splicer

if TYPE_CHECKING:
    from saebench.cells.cell import ModelUse
    from saebench.host import Catalog


class LanguageModel(LoadedModel):
    """`saebench.api.TextModel`, and more for the harness."""

    def __init__(
        self, model: torch.nn.Module, tokenizer: Any, facts: ModelFacts, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(model, tokenizer, facts, device)
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
        load: LoadSettings = PLAIN,
    ) -> LanguageModel:
        """Loads weights and tokenizer of a built-in id, a folder, a hub id, or what a plugin makes of the id.

        `allow_unused` are patterns of tensors that may stay unused (`load.allow_unused` of a suite); `load` is all else
        that a suite says of how its weights are loaded.

        Raises:
            SuiteError: It is no usable model.
        """
        own = plugin_model(model_id, revision, catalog, load)
        if own is not None:
            facts = facts_of(own, own.config, model_id=model_id, revision=revision, model_digest=state_digest(own))
            return cls(own, own.tokenizer, facts, device)
        facts = describe_model(model_id, revision, load=load)
        facts.check_loading(allow_unused)
        assert facts.weights is not None
        assert facts.folder is not None
        trust = load.trust_remote_code
        config = read_config(facts.folder, model_id, trust=trust)
        refuse_not_usable(load, str(device), config, facts.kind, model_id)
        model = load_weights(config, facts.kind, facts.weights, model_id, load, device)
        return cls(model, read_tokenizer(facts.folder, model_id, trust=trust), facts, device)

    @classmethod
    def of(cls, use: ModelUse, device: str | torch.device, catalog: Catalog | None) -> LanguageModel:
        """The model of a plan, loaded as its suite says.

        Raises:
            SuiteError: It is no usable model.
        """
        return cls.load(use.id, use.revision, device, catalog=catalog, allow_unused=use.allow_unused, load=use.load)

    def splicer(self, hookpoint: str) -> Splicer:
        """Losses with the output of one module replaced.

        Raises:
            SuiteError: The model is an encoder.
        """
        if not self.causal:
            raise SuiteError(f"model '{self.facts.id}': {self.facts.no_losses}.")
        if hookpoint not in self._splicers:
            self._splicers[hookpoint] = Splicer(self, hookpoint)
        return self._splicers[hookpoint]

    # --- for dataset plugins ------------------------------------------------------------------------------------------

    def sample(
        self, n_sequences: int, length: int, *, temperature: float, top_p: float, generator: torch.Generator
    ) -> Tensor:
        """`[n_sequences, length]` int64 from BOS; see `saebench.lm.sampling`."""
        return sample(self, n_sequences, length, temperature=temperature, top_p=top_p, generator=generator)

    def hidden_mean(self, texts: Sequence[str]) -> Tensor:
        """`[len(texts), d_model]` mean output of the last block over each text's tokens, BOS left out.

        Texts are cut to the context. A text without tokens gives zeros.
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
            if not bool(x[real].isfinite().all()):
                raise self.not_finite(f"an activation at '{path}'")
            out[chosen] = (x * real[..., None]).sum(1) / real.sum(1).clamp_min(1)[:, None]
        return out
