"""What a plan does, in order: FLOPs as the meter counts them, seconds from rates, bytes of activation stores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saebench.api.specs import Cost
from saebench.api.splits import Split
from saebench.cells.cell import Cell, DatasetUse, ModelUse
from saebench.cells.generations import generations
from saebench.cells.plan import PHASES, Cohort, Group
from saebench.host import Catalog
from saebench.plan.contenders.metrics import streams_of
from saebench.plan.forecast.disk import MANIFEST_BYTES, row_bytes, token_bytes
from saebench.plan.forecast.rates import Rates
from saebench.plan.grouping.groups import GROUP_TOKENS, reads_codes

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook
    from saebench.lm.facts import ModelFacts

FINISH_TOKENS = 65_536
"""Most tokens that making the inference form reads (`finalize`)."""
PLAN_S, LOAD_S, BOARD_S = 2.0, 2.0, 2.0
"""Planning, loading one model, drawing the leaderboard."""
CELL_S = 0.1
"""Checkpoint, reloading and record of one cell."""
PAIR_S, PAIR_SQUARE_S = 0.15, 5e-8
"""A group metric over two dictionaries of n latents: the first, and the second times n^2 (15 s at 16,384)."""
DRAW_S = 0.02
"""A pair of random dictionaries, drawn and matched for a level of chance, beside the second of these times n^2."""
TRUTH_BYTES = 2
"""True codes of a synthetic vector, for each of its coordinates."""
TEST_SHARE = 0.75
"""Of the held-out data, where a search takes the rest for validation."""
SHARED_LOSSES = 3
"""Clean, zero and mean: forwards that all cells of a site share."""


@dataclass
class Work:
    """Sums while a plan is read. What is made once and read often counts the first time.

    Attributes:
        train_flops, forward_flops: Of training, and of the language model.
        phases: Seconds by kind of phase.
        store_bytes: Of activation stores.
    """

    catalog: Catalog
    facts: ModelBook
    rates: Rates
    costs: Mapping[str, Cost]
    train_flops: int = 0
    forward_flops: int = 0
    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    store_bytes: int = 0
    _seen: set[tuple[object, ...]] = field(default_factory=set)

    def fixed(self, cells: Sequence[Cell]) -> None:
        """What takes about as long for every cell, and once a run."""
        self.phases["planning"] += PLAN_S
        self.phases["leaderboard"] += BOARD_S
        self.phases["loading"] += LOAD_S * len({cell.model.digest for cell in cells if cell.model is not None})

    # ---- training ----------------------------------------------------------------------------------------------------

    def data(self, cohorts: Sequence[Cohort], cells: Sequence[Cell]) -> None:
        """Activations of one pass: what is not stored yet is read in one forward to the deepest hook."""
        first = cohorts[0]
        live = first.activations.source == "live" and first.model is not None
        stores = [(site_key(one.model), one.dataset.recipe, one.data_seed, one.tokens, one.dtype) for one in cohorts]
        fresh = [cohort for cohort, key in zip(cohorts, stores, strict=True) if live or self._first("store", *key)]
        if not fresh:
            return
        made = made_tokens(first.dataset)
        asked = max(cohort.tokens for cohort in fresh)
        rows = bounded(asked, first.dataset, "train")
        if not live:
            for cohort in fresh:
                distinct = bounded(cohort.tokens, cohort.dataset, "train")
                self._store(distinct, cohort.d_in, cohort.dtype, "activations", indexed=cohort.model is not None)
                # every generation of cells reads all of its rows once an epoch
                read_bytes = cohort.tokens * row_bytes(cohort.d_in, cohort.dtype, indexed=False)
                self.phases["activations"] += read_bytes * self.rates.assumed.read_byte_s
        if first.model is not None and self._first(
            "windows", first.model.digest, first.dataset.recipe, first.data_seed, asked
        ):
            self.store_bytes += MANIFEST_BYTES + token_bytes(rows, first.model.context)
        self.phases["reading"] += self._reading(first.dataset, first.model, rows)
        if first.model is None:
            return
        facts, rate = self._model(first.model), self.rates.model(first.model, self._model(first.model))
        if made and self._first("made", first.dataset.recipe, first.model.context):
            self.phases["sampling"] += rows * rate.sample_token_s
            self.forward_flops += rows * facts.forward_flops_per_token()
        deepest = max(
            facts.forward_flops_per_token(cohort.model.hookpoint) for cohort in fresh if cohort.model is not None
        )
        # a live source forgets: every epoch, and every generation of children in the same cohort, is read anew
        depth = generations(cells)
        rounds = max((depth[cell.cell_id] + 1 for cell in cells if cell.trains), default=0)
        read = asked * rounds if live else rows
        self.forward_flops += read * deepest
        self.phases["activations"] += read * deepest * rate.flop_s

    def training(self, cell: Cell) -> tuple[float, int]:
        """A cell's own training, in seconds and FLOPs; a floor or ceiling row takes hardly any."""
        if not cell.trains:
            return 0.0, 0
        cost = self.costs[cell.cell_id]
        tokens = whole_steps(cell)
        steps = tokens // cell.train.batch
        l0 = cost.expected_l0 if cost.expected_l0 is not None else cell.d_sae
        flops = int(tokens * (cost.train_flops_per_token + l0 * cost.train_flops_per_active))
        flops += steps * cost.step_flops
        self.train_flops += flops
        rate = self.rates.training_of(cell, cost)
        finish_s = min(tokens, FINISH_TOKENS) * rate.finish_token_s
        seconds = rate.setup_s + steps * rate.step_s + finish_s
        self.phases["training"] += seconds
        return seconds, flops

    # ---- scoring -----------------------------------------------------------------------------------------------------

    def held_out(self, cell: Cell) -> None:
        """Held-out data that all cells of a site share, made when the first of them is scored."""
        streams, evaluation, site = streams_of(cell, self.catalog), cell.evaluation, site_key(cell.model)
        asked, side = max(evaluation.tokens, evaluation.density_tokens), evaluation.density_tokens
        for seed in evaluation.seeds:
            for use in cell.evaluation_datasets:
                if self._first("held-out", site, use.recipe, seed):
                    share = TEST_SHARE if evaluation.part is not None else 1.0
                    rows = bounded(asked, use, "held-out", share)
                    losses = bounded(evaluation.loss_tokens, use, "held-out", share)
                    self._held_out_rows(cell, use, rows, losses)
                    if cell.model is not None:
                        sampled = rows if use.kind == "generated" else 0
                        losses = evaluation.loss_tokens if "loss" in streams else 0
                        self._forward(cell.model, hooked=rows, sampled=sampled, losses=losses)
            if cell.tune is not None:
                self._validation(cell, seed)
            if cell.model is not None and self._first("side", site, seed):
                causal = self._model(cell.model).causal
                for name in sorted(streams - {"eval", "density", "loss"}):
                    sampled = side if name == "self-sampled" else 0
                    if causal or not sampled:
                        self._store(side, cell.d_in, "float32", "held-out")
                        self._forward(cell.model, hooked=side, sampled=sampled, losses=0)

    def _validation(self, cell: Cell, seed: int) -> None:
        """Validation data of the dataset that a search is judged on."""
        from saebench.activations.sources.validation_split import VALIDATION_ONE_IN

        use, asked = cell.evaluation_datasets[0], max(cell.evaluation.tokens, cell.evaluation.density_tokens)
        rows = bounded(asked, use, "held-out", 1 / VALIDATION_ONE_IN)
        if self._first("validation", site_key(cell.model), use.recipe, seed):
            self._held_out_rows(cell, use, rows, cell.evaluation.loss_tokens)
            if cell.model is not None:
                sampled = VALIDATION_ONE_IN * rows if use.kind == "generated" else 0
                self._forward(cell.model, hooked=rows, sampled=sampled, losses=0)

    def scoring(self, cell: Cell) -> float:
        """One cell's own passes over what is there, in seconds."""
        from saebench.activations.sources.held_out.loss_windows import LOG_PROB_BYTES

        cost, streams, evaluation = self.costs[cell.cell_id], streams_of(cell, self.catalog), cell.evaluation
        side = evaluation.density_tokens
        passes = len(cell.evaluation_datasets) * len(evaluation.seeds)
        tokens = max(evaluation.tokens, side)
        again_s = losses_s = 0.0
        if cell.model is not None:
            facts = self._model(cell.model)
            tokens += side * len(streams - {"eval", "density", "loss", "self-sampled"})
            if facts.causal:
                losses = evaluation.loss_tokens if "loss" in streams else 0
                tokens += side * len(streams & {"self-sampled"}) + losses
                self.forward_flops += passes * losses * facts.forward_flops_per_token()
                # what does not fit the memory for log-probabilities is computed again for every cell
                kept = LOG_PROB_BYTES // (4 * max(1, facts.vocab_size))
                clean_token_s = self.rates.model(cell.model, facts).clean_token_s
                again_s, losses_s = max(0, losses - kept) * clean_token_s, losses * clean_token_s
        seconds = CELL_S + passes * (again_s + self.rates.score(cell, cost, tokens, losses_s))
        if cell.tune is not None:
            seconds += len(evaluation.seeds) * self.rates.score(cell, cost, evaluation.tokens)
        self.phases["scoring"] += seconds
        return seconds

    def group(self, group: Group, members: Sequence[Cell]) -> None:
        """Its pairs, and where codes are compared a pass of each member over some held-out tokens."""
        from saebench.matching.agreement.chance import n_draws
        from saebench.matching.agreement.data_chance import DRAWS

        if len(members) < 2:
            return
        pairs = len(members) * (len(members) - 1) // 2
        largest = max(cell.d_sae for cell in members)
        self.phases["groups"] += len(group.metrics) * pairs * (PAIR_S + PAIR_SQUARE_S * largest**2)
        # a level of chance goes by how many latents of both are alive: hardly a pair finds its own in the cache
        draws = pairs * (n_draws(largest) + DRAWS)
        # the level of untrained samples at the full size is found once for a site, its data and a size
        if self._first("data-null", site_key(members[0].model), members[0].dataset.recipe, largest):
            draws += DRAWS
        self.phases["groups"] += draws * (DRAW_S + PAIR_SQUARE_S * largest**2)
        if reads_codes(group, self.catalog):
            for cell in members:
                whole = max(cell.evaluation.tokens, cell.evaluation.density_tokens)
                read = min(cell.evaluation.tokens, GROUP_TOKENS)
                self.phases["groups"] += self.rates.score(cell, self.costs[cell.cell_id], whole) * read / whole

    # ---- small questions ---------------------------------------------------------------------------------------------

    def _first(self, *key: object) -> bool:
        """True the first time that this key is asked for."""
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _forward(self, model: ModelUse, *, hooked: int, sampled: int, losses: int) -> None:
        facts = self._model(model)
        rate = self.rates.model(model, facts)
        losses = losses if facts.causal else 0
        near, whole = facts.forward_flops_per_token(model.hookpoint), facts.forward_flops_per_token()
        self.forward_flops += hooked * near + sampled * whole + SHARED_LOSSES * losses * whole
        self.phases["held-out"] += (
            hooked * near * rate.flop_s + sampled * rate.sample_token_s + losses * rate.loss_token_s
        )

    def _held_out_rows(self, cell: Cell, use: DatasetUse, rows: int, losses: int) -> None:
        """A store of held-out rows, with the token windows that losses are taken on, or the true codes."""
        self._store(rows, cell.d_in, "float32", "held-out", indexed=cell.model is not None)
        if cell.model is not None:
            self.store_bytes += token_bytes(max(rows, losses), cell.model.context)
        elif use.kind == "synthetic":
            self.store_bytes += rows * (TRUTH_BYTES * cell.d_in + 8)
        self.phases["held-out"] += self._reading(use, cell.model, rows)

    def _store(self, rows: int, d: int, dtype: str, phase: str, *, indexed: bool = True) -> None:
        size = rows * row_bytes(d, dtype, indexed=indexed) + MANIFEST_BYTES
        self.store_bytes += size
        self.phases[phase] += size * self.rates.write_byte_s

    def _reading(self, use: DatasetUse, model: ModelUse | None, rows: int) -> float:
        rate = self.rates.dataset(use, model)
        first = self._first("open", use.recipe)
        self.store_bytes += use.keeps if first else 0
        return (rate.open_s if first else rate.again_s) + rows * rate.token_s

    def _model(self, use: ModelUse) -> ModelFacts:
        return self.facts.model(use.id, use.revision, use.load)


def bounded(asked: int, use: DatasetUse, split: Split, share: float = 1.0) -> int:
    """Distinct tokens (vectors) that are read of a split, or of a share of it: what is asked for, or all there are."""
    made, there = made_tokens(use), use.holds.get(split)
    asked = min(asked, made) if made and split == "train" else asked
    return asked if there is None else min(asked, int(share * there))


def whole_steps(cell: Cell) -> int:
    """Tokens that its training reads: its allotment in whole batches, the last of which may over-spend."""
    return math.ceil(cell.tokens / cell.train.batch) * cell.train.batch


def made_tokens(use: DatasetUse) -> int:
    """Tokens that a generated dataset holds, known before it is made; 0 for others."""
    return int(use.options.get("tokens", 0) or 0) if use.kind == "generated" else 0


def site_key(model: ModelUse | None) -> tuple[str, ...]:
    """Equal for cells that read the same place of the same model."""
    return (model.digest, model.hookpoint, str(model.context)) if model is not None else ()
