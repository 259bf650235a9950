"""Encoding with one module, decoding with another: canonical codes are all that passes between them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saebench.api import PluginError, ScoringFacts, SparseCodes
from saebench.api.errors import DIVERGED_ADVICE, Diverged, NotFinite, contained, describe
from saebench.cells.cell import Cell
from saebench.host import Catalog
from saebench.host.build import declared_side
from saebench.host.sae_contract import normalise_codes
from saebench.score.canonical import canonical
from saebench.score.probes import Findings, Sample, try_sample


class Runner:
    """Encodes and decodes for scoring: times the encoder, checks the contract. Canonical codes are all that one module
    gets of what the other has seen.

    Args:
        sae: In inference form. It encodes.
        d_out: Width it writes.
        facts: Filled while running.
        label: Named in errors.
        decoder: The same SAE, loaded anew: it decodes, and has never seen x.
        side: Values a token that `encode` may leave, by name (`ArchitectureSpec.side`). None: they are left out.
        may_be_coupled: Whether codes may depend on the batch (tag `batch_coupled`).

    Attributes:
        findings: What the probes saw.
    """

    def __init__(
        self,
        sae: Any,
        d_out: int,
        facts: ScoringFacts,
        label: str,
        *,
        decoder: Any,
        side: Mapping[str, int] | None,
        may_be_coupled: bool = False,
    ) -> None:
        if decoder is sae:
            raise ValueError("decoder must be a module of its own: what encodes must not decode")
        self.sae, self.d_out, self.facts, self.label = sae, d_out, facts, label
        self.decoder, self.side, self.may_be_coupled = decoder, side, may_be_coupled
        self.d_sae = int(sae.d_sae)
        self.findings = Findings()

    def encode(self, x: Tensor) -> SparseCodes:
        """Canonical codes of `x [B, d_in]`.

        Raises:
            Diverged: They are not finite.
            PluginError: They are no codes.
        """
        _wait(x)
        started = time.perf_counter()
        answer = self._call(self.sae, "encode", x.clone())  # what it writes into x would be the target too
        _wait(x)
        self.facts.encode_s += time.perf_counter() - started
        self.facts.encoded_tokens += x.shape[0]
        return self._codes(answer, x)

    def _codes(self, answer: Any, x: Tensor) -> SparseCodes:
        try:
            codes = normalise_codes(answer, self.d_sae, n_rows=x.shape[0], plugin=self.label)
            return canonical(codes, self.side, self.label, type(x))
        except NotFinite as error:
            raise Diverged(f"{error}. {DIVERGED_ADVICE}") from error

    def decode(self, codes: SparseCodes) -> Tensor:
        """Checked reconstruction `[B, d_out]`.

        Raises:
            Diverged: It is not finite.
            PluginError: It is no reconstruction.
        """
        x_hat = self._call(self.decoder, "decode", codes.clone())  # metrics read these codes
        if not isinstance(x_hat, Tensor) or x_hat.shape != (codes.n_rows, self.d_out):
            found = list(x_hat.shape) if isinstance(x_hat, Tensor) else type(x_hat).__name__
            raise PluginError(f"{self.label}: decode must return [{codes.n_rows}, {self.d_out}], got {found}")
        if not bool(torch.isfinite(x_hat).all()):
            raise Diverged(f"{self.label}: decode returned values that are not finite. {DIVERGED_ADVICE}")
        return x_hat

    def probe(self, sample: Sample) -> None:
        """Encodes and decodes a sample again; neither counted nor timed.

        Raises:
            PluginError: Codes depend on the batch, or a reconstruction on more than codes.
        """
        try_sample(
            sample,
            lambda x: self._codes(self._call(self.sae, "encode", x.clone()), x),
            self.decode,
            self.findings,
            decoder=self.decoder,
            label=self.label,
            may_be_coupled=self.may_be_coupled,
        )

    def _call(self, module: Any, method: str, argument: Tensor | SparseCodes) -> Any:
        try:
            with contained():
                return getattr(module, method)(argument)
        except (PluginError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise PluginError(f"{self.label}: {method} raised {describe(error)}") from error


def make_runner(cell: Cell, sae: Any, decoder: Any, catalog: Catalog, facts: ScoringFacts) -> Runner:
    """The runner of a cell, under what its architecture declares."""
    return Runner(
        sae,
        cell.d_out,
        facts,
        f"{cell.label} ({cell.part.architecture})",
        decoder=decoder,
        side=declared_side(cell.part, cell.base, catalog),
        may_be_coupled="batch_coupled" in cell.tags,
    )


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
