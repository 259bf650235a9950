"""Models as the planner asks for them: facts, and for small models the proof that splicing is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from saebench.base.random import generator
from saebench.cells.load import PLAIN, LoadSettings
from saebench.lm.facts import ModelFacts, describe_model
from saebench.lm.folder.model_config import read_config
from saebench.lm.folder.usable import not_usable, refuse_not_usable, refuse_unknown
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
        config_alone: A plan alone is made: weights and tokenizers may be missing, and what this machine cannot load is
            noted and not refused.
        device: Where the run is.
    """

    def __init__(self, catalog: Catalog | None = None, *, config_alone: bool = False, device: str = "cpu") -> None:
        self._catalog, self._config_alone, self._device = catalog, config_alone, device
        self._known: dict[tuple[str, str | None, LoadSettings], ModelFacts] = {}
        self._loaded: tuple[str, LanguageModel] | None = None

    def model(self, model_id: str, revision: str | None = None, load: LoadSettings = PLAIN, /) -> ModelFacts:
        """`describe_model` with this book's catalog, once for each model: the hub answers slowly.

        Raises:
            SuiteError: It is no usable model.
        """
        key = (model_id, revision, load)
        if key not in self._known:
            refuse_unknown(load, model_id)
            facts = describe_model(
                model_id, revision, catalog=self._catalog, config_alone=self._config_alone, load=load
            )
            self._known[key] = replace(facts, not_usable=self._not_usable(facts))
        return self._known[key]

    def _not_usable(self, facts: ModelFacts) -> str | None:
        """Why this machine cannot load it so; None where it can.

        Raises:
            SuiteError: It cannot, and more than a plan is made.
        """
        if facts.folder is None or facts.load == PLAIN:
            return None
        config = read_config(facts.folder, facts.id, trust=facts.load.trust_remote_code)
        if not self._config_alone:
            refuse_not_usable(facts.load, self._device, config, facts.kind, facts.id)
        return not_usable(facts.load, self._device, config, facts.kind)

    def prove(
        self,
        model_id: str,
        revision: str | None,
        hookpoint: str,
        allow_unused: Sequence[str] = (),
        load: LoadSettings = PLAIN,
    ) -> None:
        """Shows that splicing is exact at a hookpoint, given by its path, on random tokens.

        A model that cannot be loaded on the CPU is proven when its run loads it.

        Raises:
            SuiteError: It is not, with the cause.
        """
        facts = self.model(model_id, revision, load)
        if not facts.causal or facts.lacks or facts.weights is None or facts.weights.n_bytes > PROOF_BYTES:
            return
        if load.is_placed or (load.attention or "").startswith("flash"):
            return
        if self._loaded is None or self._loaded[0] != facts.digest:
            loaded = LanguageModel.load(model_id, revision, catalog=self._catalog, allow_unused=allow_unused, load=load)
            self._loaded = facts.digest, loaded
        lm = self._loaded[1]
        ids = torch.randint(lm.vocab_size, (2, min(PROOF_TOKENS, lm.context)), generator=generator("proof", "ids"))
        ids[:, 0] = lm.bos_id
        lm.splicer(hookpoint).clean(ids)
