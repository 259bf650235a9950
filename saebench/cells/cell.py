"""A cell: one training run and its scoring, with all that decides its weights and its score. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from saebench.api.specs import Site
from saebench.cells.load import PLAIN, LoadSettings

ENGINE_VERSION = "3"
"""Goes up whenever the harness itself can change trained weights (loop, optimiser, order of tokens, normalisation)."""

DATA_VERSION = 1
"""Goes up whenever equal suites can give other tokens or activations (splits, packing, order, what is left out).

It is in the key of every store, and in every id from version 2 on: the ids of version 1 were made without it.
"""


@dataclass(frozen=True)
class ArchitectureUse:
    """An architecture with its full config (defaults filled in)."""

    architecture: str
    version: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class ModelUse:
    """A language model at one hookpoint.

    Attributes:
        id: As the suite writes it.
        revision: Hub revision, or None.
        digest: Digest of weights, config and tokenizer, and of how they are loaded where that is not the default; where
            one of them is not here, a marked one of what is.
        hookpoint: Dotted module path.
        hookpoint_name: As the suite writes it (`layers.2`).
        context: Tokens a sequence, BOS included.
        allow_unused: Patterns of tensors in its files that may stay unused.
        notes: What a person should know of how its files were read, one sentence each.
        load: How its weights are loaded.
        is_here: Whether this machine can load it: False where it is planned from its config, or for another machine.
    """

    id: str
    revision: str | None
    digest: str
    hookpoint: str
    hookpoint_name: str
    context: int
    allow_unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    load: LoadSettings = PLAIN
    is_here: bool = True


@dataclass(frozen=True)
class DatasetUse:
    """A dataset with its options resolved.

    Attributes:
        name: As the suite calls it.
        plugin, version, kind: Of the spec.
        options: With defaults filled in, JSON-ready.
        recipe: Recipe digest, known before anything is built.
        model: The language model that makes its vectors, of a dataset of vectors that needs one. None for all others:
            text is read through the model of the cell.
        holds: About how many tokens (vectors) each split holds, where this is known at plan time.
        keeps: Bytes that it and the datasets it reads keep, about.
    """

    name: str
    plugin: str
    version: str
    kind: str
    options: Mapping[str, Any]
    recipe: str
    model: ModelUse | None = None
    holds: Mapping[str, int] = field(default_factory=dict)
    keeps: int = 0


@dataclass(frozen=True)
class TrainSettings:
    """How a cell is trained, with nothing left `auto`."""

    batch: int
    lr: float
    betas: tuple[float, float]
    eps: float
    clip: float | None
    warmup: float
    decay: float
    normalise: str
    """`rms`: inputs divided by one scalar so that their mean squared norm is d_in; `none`."""
    dtype: str = "float32"
    """Precision of the activations, stored or live."""
    shuffle: int = 65_536
    """Rows of one shuffled block of them."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What a cell is scored on; the first dataset gives the headline values."""

    datasets: tuple[str, ...]
    tokens: int
    loss_tokens: int
    density_tokens: int
    seeds: tuple[int, ...]
    part: Literal["test"] | None = None
    """`test` in a suite that tunes: a part of the held-out data that no search has seen. None: all of it."""


@dataclass(frozen=True)
class Tune:
    """A cell's place in a search. Candidates of one search are equal but for `values` and the init seed.

    Attributes:
        group, point: Key of the search; label of the operating point it is made for.
        metric, direction, spec, version: What decides, on the validation part of the held-out data, and the spec that
            gives it.
        values, n_candidates: Those tried here; how many divide the share.
    """

    group: str
    point: str
    metric: str
    direction: str
    spec: str
    version: str
    values: Mapping[str, Any]
    n_candidates: int


@dataclass(frozen=True)
class Cell:
    """One training run and its scoring.

    Attributes:
        cell_id: Digest of all that decides the weights.
        score_id: `cell_id` plus all that decides the score.
        suite, entry, point: Names for people; `point` is a label such as `k16` (empty sweep: `default`).
        sweep: The sweep values of this point.
        where: File and line of the entry, for error messages.
        part: The architecture; `base` the wrapped one, for wrappers.
        d_in, d_out, d_sae: Sizes.
        tags: The spec's tags (a wrapper's and its base's together).
        model: None for cells on activations or synthetic data.
        dataset: Training data.
        evaluation: Settings; `evaluation_datasets` resolved in the same order.
        init_seed, data_seed: Seeds.
        parent: `cell_id` of the cell whose weights it starts from.
        train: How it is trained; a control has the settings of the cell that it is made after.
        tokens: Allotment.
        control: Never ranked: a floor or ceiling row, or a child's parent that was trained on.
        expected_l0: What the config aims at, or None.
        cohort, group: Keys.
        plugins: Distribution and version behind each spec used, for the record.
    """

    cell_id: str
    score_id: str
    suite: str
    entry: str
    point: str
    sweep: Mapping[str, Any]
    where: str
    part: ArchitectureUse
    base: ArchitectureUse | None
    d_in: int
    d_out: int
    d_sae: int
    tags: tuple[str, ...]
    model: ModelUse | None
    dataset: DatasetUse
    evaluation: EvaluationSettings
    evaluation_datasets: tuple[DatasetUse, ...]
    init_seed: int
    data_seed: int
    parent: str | None
    train: TrainSettings
    tokens: int
    control: bool
    expected_l0: float | None
    cohort: str
    group: str
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Version by name of each cell metric spec that scores it."""
    plugins: Mapping[str, Any] = field(default_factory=dict)
    tune: Tune | None = None
    continued: bool = False
    """Of a control: it is trained. It is a child's parent, trained on by as much as the child."""
    variant: str = ""
    """What it differs in from cells of the same entry, point and init seed of its plan; empty where there are none."""

    @property
    def site(self) -> Site:
        """Where it reads and writes: a hookpoint of its model, or its dataset."""
        place = self.model.hookpoint if self.model is not None else self.dataset.name
        return Site(self.d_in, self.d_out, place, place)

    @property
    def trains(self) -> bool:
        """False for floor and ceiling rows, which learn nothing."""
        return self.continued or not self.control

    @property
    def label(self) -> str:
        """For people: `topk k16 s0`; `topk k16 layers.2 d1 s0` where cells differ in hookpoint and data seed too."""
        return " ".join(filter(None, (self.entry, self.point, self.variant, f"s{self.init_seed}")))

    @property
    def record_name(self) -> str:
        """File name of its record: `<point>-s<seed>-<8 hex>.json`."""
        return f"{self.point}-s{self.init_seed}-{self.score_id[:8]}.json"
