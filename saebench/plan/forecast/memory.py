"""How much memory a run takes, from its parts: what is always there, and what each phase holds besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saebench.api.specs import Cost
from saebench.cells.cell import Cell, ModelUse
from saebench.cells.plan import Cohort, Group
from saebench.host import Catalog
from saebench.nn.cost import padded_sizes
from saebench.plan.contenders.metrics import streams_of
from saebench.plan.forecast.disk import VALUE_BYTES, row_bytes
from saebench.plan.forecast.work import bounded, site_key
from saebench.plan.grouping.groups import GROUP_CODES_BYTES, GROUP_TOKENS, reads_codes
from saebench.plan.grouping.memory_batches import memory_batches, memory_together, share_of

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook
    from saebench.lm.facts import ModelFacts

BARE_BYTES, MODEL_LIBRARY_BYTES = 300_000_000, 150_000_000
"""Interpreter, torch, scipy and our own modules; transformers, tokenizers and what they build beside the weights."""
FORWARD_VALUES = 20
"""Float32 values that each token of a forward needs in it, times the width of the model."""
LOGIT_COPIES = 4
"""In how many forms logits exist at once: as they come, as logarithms of two passes, their product."""
SCORED_VALUES, SCORED_TOKENS = 1 << 26, 4096
"""Most dense pre-activations of a scoring batch, and most tokens in it."""
KEPT_BLOCKS = 2
"""Blocks of rows in memory beside those that a thread makes ahead."""
KERNEL_BYTES, MOST_KERNELS, DEAD_PRODUCTS = 600_000, 1024, 4
"""oneDNN compiles a bfloat16 product for every shape that it meets, and keeps so many; AuxK makes four products of the
latents that are dead at a step, padded to few sizes."""
SAMPLE_LOGIT_BYTES, CACHE_COPIES = 28, 1.2
"""Of each logit of a sampled token: as it comes, divided, as float32 and float64 probabilities, summed. And in how many
forms the key-value cache exists: it grows by copies, a layer at a time (measured with 8 layers: 1.15 to 1.3)."""
PAIR_SQUARE_BYTES, PAIR_MOST_BYTES = 90, 700_000_000
"""Matching two dictionaries of n latents: the first times n^2, at most the second (measured at 1,024 to 8,192)."""
CODE_BYTES = 8
"""An active latent of a token, as the codes of a group are kept."""


@dataclass(frozen=True)
class Memory:
    """Bytes. `interpreter`, `kernels`, `model` and the largest phase are there together.

    Attributes:
        interpreter: Python, libraries, our own code.
        kernels: Compiled products.
        model: Weights of the largest language model; one is in memory at a time.
        activations: A forward, or samples with their key-value cache.
        training: Cells that train side by side, the workspace of a step, blocks of rows.
        scoring: One cell, a scoring batch, forwards with its reconstruction, losses that all cells share.
        groups: Members, their codes, the matching of a pair; `members` of it are on the device.
        stores: Mapped rows, beside all this. They are in memory only while it is free.
    """

    interpreter: int = 0
    kernels: int = 0
    model: int = 0
    activations: int = 0
    training: int = 0
    scoring: int = 0
    groups: int = 0
    members: int = 0
    stores: int = 0

    @property
    def process(self) -> int:
        """Most that the process holds where all is in its own memory."""
        phases = (self.activations, self.training, self.scoring, self.groups)
        return self.interpreter + self.kernels + self.model + max(phases)

    @property
    def device(self) -> int:
        """Most that is on the device."""
        return self.model + max(self.activations, self.training, self.scoring, self.members)

    def parts(self) -> dict[str, int]:
        """By name, as the estimate lists them."""
        names = ("interpreter", "kernels", "model", "activations", "training", "scoring", "groups", "stores")
        return {name: getattr(self, name) for name in names}

    def device_parts(self) -> dict[str, int]:
        """What of them is on the device; of a group its members alone."""
        phases = {"activations": self.activations, "training": self.training, "scoring": self.scoring}
        return {"model": self.model, **phases, "groups": self.members}


@dataclass(frozen=True)
class Needs:
    """What memory is predicted from.

    Attributes:
        cells: All of them.
        passes: Cohorts that are read side by side, with those of their cells that are in `cells`, parents first.
        groups: With their members among the cells.
        costs: By `cell_id`.
        catalog, facts: Installed plugins; what is known of models.
        free_bytes: Free on the device; None: there is no limit.
        memory_gb: The budget's, in 10^9 bytes.
        compiles: Whether encoder products run in bfloat16 on a CPU.
    """

    cells: Sequence[Cell]
    passes: Sequence[tuple[Sequence[Cohort], Sequence[Cell]]]
    groups: Sequence[tuple[Group, Sequence[Cell]]]
    costs: Mapping[str, Cost]
    catalog: Catalog
    facts: ModelBook
    free_bytes: int | None = None
    memory_gb: float | None = None
    compiles: bool = False

    def memory(self) -> Memory:
        """Of the whole run."""
        uses = {cell.model.digest: cell.model for cell in self.cells if cell.model is not None}
        return Memory(
            interpreter=BARE_BYTES + MODEL_LIBRARY_BYTES * bool(uses),
            kernels=self._kernels() if self.compiles else 0,
            model=max(map(self._weights, uses.values()), default=0),
            activations=max((self._activations(use) for use in uses.values()), default=0),
            training=max((self._training(cohorts, cells) for cohorts, cells in self.passes), default=0),
            scoring=max(map(self._scoring, self.cells), default=0),
            groups=max((sum(self._group(group, cells)) for group, cells in self.groups), default=0),
            members=max((self._group(group, cells)[0] for group, cells in self.groups), default=0),
            stores=max(
                (max(_rows(cohorts), self._held_out(cells)) for cohorts, cells in self.passes),
                default=0,
            ),
        )

    def _kernels(self) -> int:
        """Of cells that revive dead latents, as their config says. Seldom more than half of the latents are dead."""
        steps: dict[tuple[int, int, int], int] = {}
        for cell in self.cells:
            if cell.trains and (cell.base or cell.part).config.get("aux_coefficient"):
                shape = (cell.d_in, cell.train.batch, cell.d_sae)
                steps[shape] = steps.get(shape, 0) + cell.tokens // cell.train.batch
        products = sum(min(count, padded_sizes(shape[2] // 2)) for shape, count in steps.items())
        return KERNEL_BYTES * min(MOST_KERNELS, DEAD_PRODUCTS * products)

    def _activations(self, use: ModelUse) -> int:
        """A forward; where a dataset or a metric samples the model, its cache and the logits of a token a sequence."""
        from saebench.lm.sampling import SAMPLE_ROWS

        facts = self._model(use)
        most = _forward(facts)
        if facts.causal and any(self._samples(cell) for cell in self.cells if cell.model == use):
            value_bytes = 4 if use.load.dtype == "float32" else 2
            cache = CACHE_COPIES * use.context * facts.cache_values * value_bytes
            most = max(most, int(SAMPLE_ROWS * (cache + SAMPLE_LOGIT_BYTES * facts.vocab_size)))
        return most

    def _samples(self, cell: Cell) -> bool:
        uses = (cell.dataset, *cell.evaluation_datasets)
        return "self-sampled" in streams_of(cell, self.catalog) or any(use.kind == "generated" for use in uses)

    def _training(self, cohorts: Sequence[Cohort], cells: Sequence[Cell]) -> int:
        """The fullest batch of cells that train side by side, with blocks of rows that are not read from a store."""
        first = cohorts[0]
        limit = None
        if self.free_bytes is not None:
            taken = self._weights(first.model) if first.model is not None else 0
            limit = max(0, share_of(self.free_bytes - taken, self.memory_gb))
        batches = memory_batches(cells, self._cost, limit)
        return max((memory_together(batch, self._cost) for batch in batches), default=0) + _blocks(cohorts)

    def _scoring(self, cell: Cell) -> int:
        """Of one cell: its weights, a batch; or a batch of losses, with what is kept of them for the others."""
        dense = 4 * min(SCORED_VALUES, SCORED_TOKENS * cell.d_sae)
        kept = losses = 0
        if cell.model is not None and "loss" in streams_of(cell, self.catalog):
            facts = self._model(cell.model)
            if facts.causal:
                losses = _loss_forward(facts)
                kept = self._kept(cell, facts)
        return self._cost(cell).stored_bytes + kept + max(dense, losses)

    def _kept(self, cell: Cell, facts: ModelFacts) -> int:
        """Losses and log-probabilities of all held-out data of the cell's model, kept until another model is read."""
        from saebench.activations.sources.held_out.loss_windows import CLEAN_BYTES, LOG_PROB_BYTES

        found = {
            (site_key(other.model), use.recipe, seed): other
            for other in self.cells
            if other.model is not None and cell.model is not None and other.model.digest == cell.model.digest
            for use in other.evaluation_datasets
            for seed in other.evaluation.seeds
        }
        return sum(
            min(LOG_PROB_BYTES, 4 * facts.vocab_size * other.evaluation.loss_tokens)
            + min(CLEAN_BYTES, 4 * other.d_in * other.evaluation.loss_tokens)
            for other in found.values()
        )

    def _group(self, group: Group, members: Sequence[Cell]) -> tuple[int, int]:
        """Members, and what comparing them takes: the matching of a pair, and codes if a metric reads them."""
        held = sum(self._cost(cell).stored_bytes for cell in members)
        if len(members) < 2:
            return held, 0
        pair = min(PAIR_MOST_BYTES, PAIR_SQUARE_BYTES * max(cell.d_sae for cell in members) ** 2)
        if not reads_codes(group, self.catalog):
            return held, pair
        active = (
            min(cell.evaluation.tokens, GROUP_TOKENS) * (cell.d_sae if cell.expected_l0 is None else cell.expected_l0)
            for cell in members
        )
        return held, pair + min(GROUP_CODES_BYTES, int(CODE_BYTES * sum(active)))

    def _held_out(self, cells: Sequence[Cell]) -> int:
        """Mapped held-out rows of the sites of a pass: its datasets, and the streams beside them."""
        total = 0
        seen: set[tuple[object, ...]] = set()
        for cell in cells:
            evaluation, streams = cell.evaluation, streams_of(cell, self.catalog)
            row = row_bytes(cell.d_in, "float32", indexed=cell.model is not None)
            asked = max(evaluation.tokens, evaluation.density_tokens)
            for seed in evaluation.seeds:
                for use in cell.evaluation_datasets:
                    text: tuple[object, ...] = (site_key(cell.model), use.recipe, seed)
                    if text not in seen:
                        seen.add(text)
                        total += bounded(asked, use, "held-out") * row
                side: tuple[object, ...] = (site_key(cell.model), seed)
                if side not in seen:
                    seen.add(side)
                    total += len(streams - {"eval", "density", "loss"}) * evaluation.density_tokens * row
        return total

    def _weights(self, use: ModelUse) -> int:
        return int(use.load.parameter_bytes * self._model(use).n_parameters)

    def _model(self, use: ModelUse) -> ModelFacts:
        return self.facts.model(use.id, use.revision, use.load)

    def _cost(self, cell: Cell) -> Cost:
        return self.costs[cell.cell_id]


def _forward(facts: ModelFacts) -> int:
    """A forward that no loss is taken of."""
    from saebench.lm.loaded import FORWARD_TOKENS

    return 4 * FORWARD_TOKENS * FORWARD_VALUES * facts.d_model


def _loss_forward(facts: ModelFacts) -> int:
    """A forward with logits, in as many tokens as keep these few."""
    from saebench.lm.loaded import FORWARD_TOKENS, LOGIT_VALUES

    return 4 * LOGIT_COPIES * min(LOGIT_VALUES, FORWARD_TOKENS * facts.vocab_size)


def _blocks(cohorts: Sequence[Cohort]) -> int:
    """Blocks of rows that a live source makes, or that are loaded ahead of a store's reader."""
    total = 0
    for cohort in cohorts:
        ahead = cohort.activations.prefetch or 0
        if ahead or (cohort.activations.source == "live" and cohort.model is not None):
            rows = min(cohort.shuffle, cohort.tokens)
            total += (KEPT_BLOCKS + ahead) * rows * cohort.d_in * VALUE_BYTES[cohort.dtype]
    return total


def _rows(cohorts: Sequence[Cohort]) -> int:
    """Rows of the stores of one pass."""
    return sum(
        bounded(cohort.tokens, cohort.dataset, "train") * row_bytes(cohort.d_in, cohort.dtype, indexed=False)
        for cohort in cohorts
        if cohort.activations.source == "store" or cohort.model is None
    )
