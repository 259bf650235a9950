"""Exact one-to-one matching of the latents of two SAEs, its chance level, and the scores that come from it."""

from __future__ import annotations

from saebench.matching.agreement.chance import null_scores
from saebench.matching.agreement.subspace import subspace_agreement
from saebench.matching.assignment import match, match_cosines, match_saes
from saebench.matching.directions import cosine_matrix, decoder_directions, encoder_directions
from saebench.matching.result import Matching
from saebench.matching.solve.nearest import best_cosines

__all__ = [
    "Matching",
    "best_cosines",
    "cosine_matrix",
    "decoder_directions",
    "encoder_directions",
    "match",
    "match_cosines",
    "match_saes",
    "null_scores",
    "subspace_agreement",
]
