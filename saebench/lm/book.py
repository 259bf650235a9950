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
    """Looks models up for the planner, asking plugins first.

    Args:
        catalog: Installed plugins.
        config_alone: A plan alone is made: weights and tokenizers may be missing.
    """

    def __init__(self, catalog: Catalog | None = None, *, config_alone: bool = False) -> None:
        self._catalog, self._config_alone = catalog, config_alone
        self._known: dict[tuple[str, str | None], ModelFacts] = {}
        self._loaded: tuple[str, LanguageModel] | None = None

    def model(self, model_id: str, revision: str | None = None, /) -> ModelFacts:
        """`describe_model` with this book's catalog, once for each model: the hub answers slowly.

        Raises:
            SuiteError: It is no usable model.
        """
        key = (model_id, revision)
        if key not in self._known:
            self._known[key] = describe_model(
                model_id, revision, catalog=self._catalog, config_alone=self._config_alone
            )
        return self._known[key]

    def prove(self, model_id: str, revision: str | None, hookpoint: str, allow_unused: Sequence[str] = ()) -> None:
        """Shows that splicing is exact at a hookpoint, given by its path, on random tokens.

        Raises:
            SuiteError: It is not, with the cause.
        """
        facts = self.model(model_id, revision)
        if not facts.causal or facts.lacks or facts.weights is None or facts.weights.n_bytes > PROOF_BYTES:
            return
        if self._loaded is None or self._loaded[0] != facts.digest:
            loaded = LanguageModel.load(model_id, revision, catalog=self._catalog, allow_unused=allow_unused)
            self._loaded = facts.digest, loaded
        lm = self._loaded[1]
        ids = torch.randint(lm.vocab_size, (2, min(PROOF_TOKENS, lm.context)), generator=generator("proof", "ids"))
        ids[:, 0] = lm.bos_id
        lm.splicer(hookpoint).clean(ids)
