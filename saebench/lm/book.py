"""Models as the planner asks for them: facts, and for small models the proof that splicing is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from saebench.base.random import generator
from saebench.lm.facts import ModelFacts, describe_model
from saebench.lm.model import LanguageModel

if TYPE_CHECKING:
    from saebench.host import Catalog

PROOF_BYTES = 256 << 20
"""Weight files up to this size are loaded when a suite is planned; a larger model is proven when its run loads it."""
PROOF_TOKENS = 16


class ModelBook:
    """Looks models up for the planner, asking plugins first."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        self._catalog = catalog
        self._loaded: tuple[str, LanguageModel] | None = None

    def model(self, model_id: str, revision: str | None = None, /) -> ModelFacts:
        """`describe_model` with this book's catalog."""
        return describe_model(model_id, revision, catalog=self._catalog)

    def prove(self, model_id: str, revision: str | None, hookpoint: str, allow_unused: Sequence[str] = ()) -> None:
        """Shows that splicing is exact at a hookpoint, given by its path, on random tokens.

        Raises:
            SuiteError: It is not, with the cause.
        """
        facts = self.model(model_id, revision)
        if not facts.causal or facts.weights is None or facts.weights.n_bytes > PROOF_BYTES:
            return
        if self._loaded is None or self._loaded[0] != facts.digest:
            loaded = LanguageModel.load(model_id, revision, catalog=self._catalog, allow_unused=allow_unused)
            self._loaded = facts.digest, loaded
        lm = self._loaded[1]
        ids = torch.randint(lm.vocab_size, (2, min(PROOF_TOKENS, lm.context)), generator=generator("proof", "ids"))
        ids[:, 0] = lm.bos_id
        lm.splicer(hookpoint).clean(ids)
