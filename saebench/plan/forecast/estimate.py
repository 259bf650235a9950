"""What a plan will cost: tokens and FLOPs exactly as the meter counts them, seconds from rates, disk and memory from sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saebench.api.specs import Cost
from saebench.api.splits import Split
from saebench.cells.cell import Cell, DatasetUse, ModelUse
from saebench.cells.plan import PHASES, Cohort, Estimate, Group
from saebench.host import Catalog
from saebench.host.build import cell_cost
from saebench.plan.forecast.rates import Rates
from saebench.plan.grouping.groups import GROUP_TOKENS
from saebench.plan.grouping.passes import form_passes

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook
    from saebench.lm.facts import ModelFacts

BASE_MEMORY_BYTES = 1_500_000_000
"""Interpreter, torch, transformers, log-probabilities of held-out text, mapped stores: what the quickstart was seen to take."""
BARE_MEMORY_BYTES = 500_000_000
"""The same without a language model: interpreter and torch."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
INDEX_BYTES, SEQUENCE_BYTES = 12, 4
"""Token id, position and sequence of each stored row; where there are no tokens, the sequence alone."""
SNAPSHOT_S, SNAPSHOT_VALUE_BYTES = 60.0, 12
"""Predicted training from which on snapshots are counted (half of the time to the first); a weight and its moments."""
FINISH_TOKENS = 65_536
"""Most tokens that making the inference form reads (`finalize`)."""
PLAN_S, LOAD_S, BOARD_S = 2.0, 2.0, 2.0
"""Planning, loading one model, drawing the leaderboard."""
CELL_S = 0.1
"""Checkpoint, reloading and record of one cell."""
PAIR_S, PAIR_SQUARE_S = 0.15, 5e-8
"""A group metric over two dictionaries of n latents, all its matchings together: the first, and the second times n^2 (15 s at 16,384)."""
RECORD_BYTES, METRIC_BYTES, PART_BYTES = 6_500, 650, 250
"""A record without metrics, one metric in it, and one of its values (a dataset under an evaluation seed)."""
CONTEXT_BYTES = 65_000
"""Strongest contexts of 20 latents."""
PAGES_BYTES, CURVE_BYTES, PAGE_SHARE, PAGE_CONTEXT_SHARE = 970_000, 55_000, 0.85, 0.4
"""A leaderboard without data, what an entry at a site adds (charts), and what of each byte of a record stands in it, contexts apart."""
CELL_BYTES = 8_000
"""A cell in plan.json and in its checkpoint's sae.json."""
TRUTH_BYTES = 2
"""True codes of a synthetic vector, for each of its coordinates."""
TEST_SHARE = 0.75
"""Of the held-out data, where a search takes the rest for validation."""
LATENT_BYTES = 12
"""Per-latent arrays of a cell."""
STORE_BYTES = 5_000
"""Manifest of a store."""
SHARED_LOSSES = 3
"""Clean, zero and mean: forwards that all cells of a site share."""


@dataclass
class _Tally:
    """Sums while a plan is read."""

    train_flops: int = 0
    forward_flops: int = 0
    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    store_bytes: int = 0
    seen: set[tuple[object, ...]] = field(default_factory=set)

    def first(self, *key: object) -> bool:
        """True the first time that this key is asked for: what is made once and read often."""
        new = key not in self.seen
        self.seen.add(key)
        return new


class Estimator:
    """Predicts any part of a plan under given rates.

    Args:
        catalog: Installed plugins: costs, and what streams metrics read.
        facts: Answers what is asked of language models.
        rates: Of this machine.
    """

    def __init__(self, catalog: Catalog, facts: ModelBook, rates: Rates) -> None:
        self._catalog, self._facts, self.rates = catalog, facts, rates

    def estimate(
        self,
        cells: Sequence[Cell],
        cohorts: Sequence[Cohort],
        groups: Sequence[Group],
        *,
        memory_limit_bytes: int | None = None,
    ) -> Estimate:
        """Totals over `cells`; cohorts and groups without any of them count nothing.

        Args:
            cells, cohorts, groups: Of the plan.
            memory_limit_bytes: What cells that are trained together may take; more are trained one pass after another.
        """
        tally = _Tally()
        by_id = {cell.cell_id: cell for cell in cells}
        costs = {cell.cell_id: cell_cost(cell, self._catalog) for cell in cells}
        passes = [
            tuple(cohort for cohort in members if any(cell in by_id for cell in cohort.cells))
            for members in form_passes(cohorts)
        ]
        members = [[by_id[cell] for cohort in one for cell in cohort.cells if cell in by_id] for one in passes]
        for one, here in zip(passes, members, strict=True):
            if here:
                self._data(one, here, tally)
        for cell in cells:
            self._streams(cell, tally)
            self._training(cell, costs[cell.cell_id], tally)
            self._scoring(cell, costs[cell.cell_id], tally)
        for group in groups:
            self._group(group, [by_id[cell] for cell in group.cells if cell in by_id], costs, tally)
        tally.store_bytes = self._within_quota(cohorts, tally.store_bytes)
        records = [self._record(cell) for cell in cells]
        written = [self._group_record(group, by_id) for group in groups]
        record_bytes = sum(records) + sum(written) + sum(CELL_BYTES + LATENT_BYTES * cell.d_sae for cell in cells)
        page_bytes = self._pages(cells, sum(records) + sum(written)) if cells else 0
        checkpoints = sum(cost.stored_bytes for cost in costs.values())
        trained = [[costs[cell.cell_id] for cell in here if not cell.control] for here in members]
        # a snapshot is replaced cell by cell: once the new one is whole, the one before it goes
        kept = [
            sum(sizes) + max(sizes, default=0) for sizes in ([cost.n_parameters for cost in here] for here in trained)
        ]
        snapshots = SNAPSHOT_VALUE_BYTES * max(kept, default=0) if tally.phases["training"] > SNAPSHOT_S else 0
        batches = {cell.cell_id: cell.train.batch for cell in cells}
        training = max((_together(here, costs, batches, memory_limit_bytes) for here in members), default=0)
        model = max((4 * self._model(cell.model).n_parameters for cell in cells if cell.model is not None), default=0)
        if cells:
            tally.phases["planning"] += PLAN_S
            tally.phases["scoring"] += CELL_S * len(cells)
            tally.phases["leaderboard"] += BOARD_S
            tally.phases["loading"] += LOAD_S * len({cell.model.digest for cell in cells if cell.model is not None})
        phases = {kind: round(seconds, 3) for kind, seconds in tally.phases.items()}
        return Estimate(
            train_tokens=sum(cell.tokens for cell in cells if not cell.control),
            train_flops=tally.train_flops,
            forward_flops=tally.forward_flops,
            seconds=round(sum(phases.values()), 3),
            phases=phases,
            disk_bytes=tally.store_bytes + checkpoints + snapshots + record_bytes + page_bytes,
            store_bytes=tally.store_bytes,
            checkpoint_bytes=checkpoints,
            record_bytes=record_bytes,
            page_bytes=page_bytes,
            snapshot_bytes=snapshots,
            memory_bytes=training + model + (BASE_MEMORY_BYTES if model else BARE_MEMORY_BYTES),
            device_memory_bytes=training + model,
            basis=self.rates.basis(),
        )

    # ---- training ----------------------------------------------------------------------------------------------------

    def _data(self, cohorts: Sequence[Cohort], cells: Sequence[Cell], tally: _Tally) -> None:
        """Activations of one pass: what is not stored yet is read in one forward to the deepest hook."""
        first = cohorts[0]
        live = first.activations.source == "live" and first.model is not None
        fresh = [
            cohort for cohort in cohorts
            if live or tally.first("store", _site(cohort.model), cohort.dataset.recipe, cohort.data_seed, cohort.tokens, cohort.dtype)
        ]  # fmt: skip
        if not fresh:
            return
        made = made_tokens(first.dataset)
        wanted = max(cohort.tokens for cohort in fresh)
        rows = bounded(wanted, first.dataset, "train")
        if not live:
            for cohort in fresh:
                distinct = bounded(cohort.tokens, cohort.dataset, "train")
                self._store(distinct, cohort.d_in, cohort.dtype, tally, "activations", indexed=cohort.model is not None)
        if first.model is not None and tally.first(
            "windows", first.model.digest, first.dataset.recipe, first.data_seed, wanted
        ):
            tally.store_bytes += STORE_BYTES + _window_bytes(rows, first.model.context)
        tally.phases["reading"] += self._reading(first.dataset, first.model, rows, tally)
        if first.model is None:
            return
        facts, rate = self._model(first.model), self.rates.model(first.model, self._model(first.model))
        if made and tally.first("made", first.dataset.recipe, first.model.context):
            tally.phases["sampling"] += rows * rate.sample_token_s
            tally.forward_flops += rows * facts.forward_flops_per_token()
        deepest = max(
            facts.forward_flops_per_token(cohort.model.hookpoint) for cohort in fresh if cohort.model is not None
        )
        # a live source forgets: every epoch, and every generation of children in the same cohort, is read anew
        read = wanted * _generations(cells) if live else rows
        tally.forward_flops += read * deepest
        tally.phases["activations"] += read * deepest * rate.flop_s

    def _training(self, cell: Cell, cost: Cost, tally: _Tally) -> None:
        if cell.control:
            return
        steps = math.ceil(cell.tokens / cell.train.batch)
        l0 = cost.expected_l0 if cost.expected_l0 is not None else cell.d_sae
        tally.train_flops += (
            int(cell.tokens * (cost.train_flops_per_token + l0 * cost.train_flops_per_active)) + steps * cost.step_flops
        )
        rate = self.rates.training_of(cell, cost)
        tally.phases["training"] += (
            rate.setup_s + steps * rate.step_s + min(cell.tokens, FINISH_TOKENS) * rate.finish_token_s
        )

    # ---- scoring -----------------------------------------------------------------------------------------------------

    def _streams(self, cell: Cell, tally: _Tally) -> None:
        """Held-out data that all cells of a site share, made when the first of them is scored."""
        streams, evaluation = self._wanted_streams(cell), cell.evaluation
        asked, side = max(evaluation.tokens, evaluation.density_tokens), evaluation.density_tokens
        for seed in evaluation.seeds:
            for use in cell.evaluation_datasets:
                if tally.first("held-out", _site(cell.model), use.recipe, seed):
                    share = TEST_SHARE if evaluation.part is not None else 1.0
                    rows = bounded(asked, use, "held-out", share)
                    self._held_out(cell, use, rows, bounded(evaluation.loss_tokens, use, "held-out", share), tally)
                    tally.phases["held-out"] += self._reading(use, cell.model, rows, tally)
                    if cell.model is not None:
                        sampled = rows if use.kind == "generated" else 0
                        losses = evaluation.loss_tokens if "loss" in streams else 0
                        self._forward(cell.model, tally, hooked=rows, sampled=sampled, losses=losses)
            if cell.tune is not None:
                self._validation(cell, seed, tally)
            if cell.model is not None and tally.first("side", _site(cell.model), seed):
                causal = self._model(cell.model).causal
                for name, sampled in (("random-tokens", 0), ("self-sampled", side)):
                    if name in streams and (causal or not sampled):
                        self._store(side, cell.d_in, "float32", tally, "held-out")
                        self._forward(cell.model, tally, hooked=side, sampled=sampled, losses=0)

    def _validation(self, cell: Cell, seed: int, tally: _Tally) -> None:
        """Validation data of the dataset that a search is judged on."""
        from saebench.activations.sources.validation_split import VALIDATION_ONE_IN

        use, asked = cell.evaluation_datasets[0], max(cell.evaluation.tokens, cell.evaluation.density_tokens)
        rows = bounded(asked, use, "held-out", 1 / VALIDATION_ONE_IN)
        if tally.first("validation", _site(cell.model), use.recipe, seed):
            self._held_out(cell, use, rows, cell.evaluation.loss_tokens, tally)
            tally.phases["held-out"] += self._reading(use, cell.model, rows, tally)
            if cell.model is not None:
                sampled = VALIDATION_ONE_IN * rows if use.kind == "generated" else 0
                self._forward(cell.model, tally, hooked=rows, sampled=sampled, losses=0)

    def _forward(self, model: ModelUse, tally: _Tally, *, hooked: int, sampled: int, losses: int) -> None:
        facts = self._model(model)
        rate = self.rates.model(model, facts)
        losses = losses if facts.causal else 0
        near, whole = facts.forward_flops_per_token(model.hookpoint), facts.forward_flops_per_token()
        tally.forward_flops += hooked * near + sampled * whole + SHARED_LOSSES * losses * whole
        tally.phases["held-out"] += (
            hooked * near * rate.flop_s + sampled * rate.sample_token_s + losses * rate.loss_token_s
        )

    def _scoring(self, cell: Cell, cost: Cost, tally: _Tally) -> None:
        """One cell's own passes over what is there."""
        from saebench.activations.sources.held_out.loss_windows import LOG_PROB_BYTES

        streams, evaluation = self._wanted_streams(cell), cell.evaluation
        side = evaluation.density_tokens
        passes = len(cell.evaluation_datasets) * len(evaluation.seeds)
        tokens = max(evaluation.tokens, side)
        pass_s = 0.0
        if cell.model is not None:
            facts = self._model(cell.model)
            tokens += side * len(streams & {"random-tokens"})
            if facts.causal:
                losses = evaluation.loss_tokens if "loss" in streams else 0
                tokens += side * len(streams & {"self-sampled"}) + losses
                tally.forward_flops += passes * losses * facts.forward_flops_per_token()
                # what does not fit the memory for log-probabilities is computed again for every cell
                kept = LOG_PROB_BYTES // (4 * max(1, getattr(facts, "vocab_size", 1)))
                pass_s = max(0, losses - kept) * self.rates.model(cell.model, facts).clean_token_s
        pass_s += self.rates.score(cell, cost, tokens)
        tally.phases["scoring"] += passes * pass_s
        if cell.tune is not None:
            tally.phases["scoring"] += len(evaluation.seeds) * self.rates.score(cell, cost, evaluation.tokens)

    def _group(self, group: Group, members: Sequence[Cell], costs: Mapping[str, Cost], tally: _Tally) -> None:
        """Its pairs, and where codes are compared a pass of each member over some held-out tokens."""
        specs = [self._catalog.group_metric(name).spec for name in group.metrics]
        if len(members) < 2:
            return
        pairs = len(members) * (len(members) - 1) // 2
        largest = max(cell.d_sae for cell in members)
        tally.phases["groups"] += len(specs) * pairs * (PAIR_S + PAIR_SQUARE_S * largest**2)
        if any(spec.streams for spec in specs):
            for cell in members:
                whole = max(cell.evaluation.tokens, cell.evaluation.density_tokens)
                read = min(cell.evaluation.tokens, GROUP_TOKENS)
                tally.phases["groups"] += self.rates.score(cell, costs[cell.cell_id], whole) * read / whole

    def _wanted_streams(self, cell: Cell) -> frozenset[str]:
        specs = (self._catalog.cell_metric(name).spec for name in cell.metrics)
        return frozenset(name for spec in specs for name in spec.streams)

    # ---- small questions ---------------------------------------------------------------------------------------------

    def _record(self, cell: Cell) -> int:
        """Bytes of a cell's record, about."""
        specs = [self._catalog.cell_metric(name).spec for name in cell.metrics]
        ids = sum(len(spec.provides) for spec in specs)
        parts = len(cell.evaluation_datasets) * len(cell.evaluation.seeds)
        return RECORD_BYTES + ids * (METRIC_BYTES + PART_BYTES * parts) + self._contexts(cell)

    def _contexts(self, cell: Cell) -> int:
        """Bytes of the strongest contexts in a cell's record."""
        specs = [self._catalog.cell_metric(name).spec for name in cell.metrics]
        return CONTEXT_BYTES if cell.model is not None and any("density" in spec.streams for spec in specs) else 0

    def _pages(self, cells: Sequence[Cell], written: int) -> int:
        """Bytes of the leaderboard, about."""
        contexts = sum(map(self._contexts, cells))
        curves = len({(cell.entry, _site(cell.model), cell.dataset.name) for cell in cells})
        return int(
            PAGES_BYTES + CURVE_BYTES * curves + PAGE_SHARE * (written - contexts) + PAGE_CONTEXT_SHARE * contexts
        )

    def _group_record(self, group: Group, by_id: Mapping[str, Cell]) -> int:
        """Bytes of a group's record and arrays, about; 0 where it has no member among these cells."""
        members = [by_id[cell] for cell in group.cells if cell in by_id]
        if not members:
            return 0
        ids = sum(len(self._catalog.group_metric(name).spec.provides) for name in group.metrics)
        return 2_000 + ids * (METRIC_BYTES + PART_BYTES)

    def _held_out(self, cell: Cell, use: DatasetUse, rows: int, losses: int, tally: _Tally) -> None:
        """A store of held-out rows, with the token windows that losses are taken on, or the true codes."""
        self._store(rows, cell.d_in, "float32", tally, "held-out", indexed=cell.model is not None)
        if cell.model is not None:
            tally.store_bytes += _window_bytes(max(rows, losses), cell.model.context)
        elif use.kind == "synthetic":
            tally.store_bytes += rows * (TRUTH_BYTES * cell.d_in + 8)

    def _store(self, rows: int, d: int, dtype: str, tally: _Tally, phase: str, *, indexed: bool = True) -> None:
        size = rows * (d * BYTES[dtype] + (INDEX_BYTES if indexed else SEQUENCE_BYTES)) + STORE_BYTES
        tally.store_bytes += size
        tally.phases[phase] += size * self.rates.write_byte_s

    def _reading(self, use: DatasetUse, model: ModelUse | None, rows: int, tally: _Tally) -> float:
        rate = self.rates.dataset(use, model)
        first = tally.first("open", use.recipe)
        tally.store_bytes += use.keeps if first else 0
        return (rate.open_s if first else rate.again_s) + rows * rate.token_s

    def _model(self, use: ModelUse) -> ModelFacts:
        return self._facts.model(use.id, use.revision)

    @staticmethod
    def _within_quota(cohorts: Sequence[Cohort], store_bytes: int) -> int:
        quota = min((cohort.activations.quota_gb for cohort in cohorts if cohort.activations.quota_gb), default=None)
        return store_bytes if quota is None else int(min(store_bytes, quota * 1e9))


def bounded(asked: int, use: DatasetUse, split: Split, share: float = 1.0) -> int:
    """Distinct tokens (vectors) that are read of a part, or of a share of it: what is asked for, at most what there is."""
    made, there = made_tokens(use), use.holds.get(split)
    asked = min(asked, made) if made and split == "train" else asked
    return asked if there is None else min(asked, int(share * there))


def made_tokens(use: DatasetUse) -> int:
    """Tokens that a generated dataset holds, known before it is made; 0 for others."""
    return int(use.options.get("tokens", 0) or 0) if use.kind == "generated" else 0


def _window_bytes(n_tokens: int, context: int) -> int:
    from saebench.activations.quota import (
        window_bytes,  # imports torch, which a command that measures nothing does without
    )

    return window_bytes(n_tokens, context)


def _site(model: ModelUse | None) -> tuple[str, ...]:
    return (model.digest, model.hookpoint, str(model.context)) if model is not None else ()


def _generations(cells: Iterable[Cell]) -> int:
    """How many times children wait for parents among these cells, plus one."""
    by_id = {cell.cell_id: cell for cell in cells}

    def depth(cell: Cell) -> int:
        return 1 + (depth(by_id[cell.parent]) if cell.parent in by_id else 0)

    return max((depth(cell) for cell in by_id.values() if not cell.control), default=0)


def _together(
    cells: Sequence[Cell], costs: Mapping[str, Cost], batches: Mapping[str, int], limit_bytes: int | None
) -> int:
    """Memory of cells trained side by side: all weights, gradients and moments, and the workspace of the one whose turn it is."""
    trained = [(costs[cell.cell_id], batches[cell.cell_id]) for cell in cells if not cell.control]
    kept = sum(16 * cost.n_parameters for cost, _ in trained)
    workspace = max((cost.workspace_bytes_per_token * batch for cost, batch in trained), default=0)
    if limit_bytes is None:
        return kept + workspace
    largest = max((cost.training_memory_bytes(batch) for cost, batch in trained), default=0)
    return min(kept + workspace, max(largest, limit_bytes))
