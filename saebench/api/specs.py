"""What a plugin registers: typed descriptions of architectures, datasets and metrics.

A spec is plain data. Whatever needs torch is named by a string `"module:attribute"`, so that listing plugins,
planning and drawing the leaderboard load no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from saebench.api.metrics import Field, Stream
    from saebench.api.splits import Split
    from saebench.api.values import MetricInfo

Reference = str | Callable[..., Any]
"""A callable, or `"module:attribute"` naming one."""


def resolve(reference: Reference) -> Callable[..., Any]:
    """The callable behind a reference; imports its module."""
    if callable(reference):
        return reference
    module, _, attribute = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


@dataclass(frozen=True)
class Site:
    """Where an SAE reads and writes.

    Attributes:
        d_in, d_out: Widths; equal for an SAE.
        reads, writes: Hookpoint or dataset name; equal for an SAE.
    """

    d_in: int
    d_out: int
    reads: str = ""
    writes: str = ""

    def __post_init__(self) -> None:
        if not min(self.d_in, self.d_out) >= 1:
            raise ValueError(
                f"a site of {self.d_in} and {self.d_out} values. Vectors of at least one value are allowed."
            )


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config. `key` is the config key; `message` says what was found, what is allowed, the next
    step.

    `data` is true where a dataset's material is at fault (a file that is not there) and not the suite: then only the
    entries that need this dataset are refused.
    """

    key: str
    message: str
    data: bool = False


@dataclass(frozen=True)
class Findings:
    """What a dataset's material shows in seconds, at plan time.

    Attributes:
        remarks: What a person should know before anything is spent; the plan prints it.
        empty: Of each part without anything in it, why. A cell that needs the part is refused.
        rows: Vectors of each part, where they are known.
        characters: Of the text of each part. Of a corpus too large to be read: at most, by the sizes of its files.
        sample: Some of that text, which tells how many characters make a token.
        keeps: Bytes that it will keep by `context.keep`, about.
    """

    remarks: tuple[str, ...] = ()
    empty: Mapping[Split, str] = field(default_factory=dict)
    rows: Mapping[Split, int] = field(default_factory=dict)
    characters: Mapping[Split, int] = field(default_factory=dict)
    sample: str = ""
    keeps: int = 0


MOST_MEMORY_BYTES = 100 * 10**12
"""No machine has more. What is under it may be planned here and run on a larger one."""


@dataclass(frozen=True)
class Cost:
    """What an architecture costs, before anything is built. FLOPs count a multiply-add as two.

    Attributes:
        n_parameters: Learned values.
        stored_bytes: Bytes of the checkpoint.
        train_flops_per_token: Dense work of a training step a token (encoder product, its share of the backward pass).
        train_flops_per_active: Sparse work of a training step for each active latent of a token.
        step_flops: Work once a step (optimiser, constraints).
        encode_flops_per_token: Dense work of encoding a token.
        workspace_bytes_per_token: Transient memory of a training step for each token of the batch.
        expected_l0: L0 the config aims at; None where only training tells.
        workspace_bytes: Transient memory of a training step whatever the batch.
    """

    n_parameters: int
    stored_bytes: int
    train_flops_per_token: int
    train_flops_per_active: int
    step_flops: int
    encode_flops_per_token: int
    workspace_bytes_per_token: int
    expected_l0: float | None = None
    workspace_bytes: int = 0

    def step_workspace_bytes(self, batch: int) -> int:
        """Transient memory of a training step."""
        return self.workspace_bytes + batch * self.workspace_bytes_per_token

    def training_memory_bytes(self, batch: int) -> int:
        """Parameters, gradients, two moments (float32) and the workspace of one batch."""
        return 16 * self.n_parameters + self.step_workspace_bytes(batch)


@dataclass(frozen=True)
class TrainDefaults:
    """What `auto` means for an architecture.

    Attributes:
        lr: Peak learning rate at `reference_width` latents; scaled by `sqrt(reference_width / d_sae)`.
        reference_width: See `lr`.
        betas, eps: Adam's.
        clip: Largest global gradient norm, or None.
        warmup, decay: Fractions of the allotment: linear from zero at the start, linear to zero at the end.
    """

    lr: float = 2e-4
    reference_width: int = 16384
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = 1.0
    warmup: float = 0.05
    decay: float = 0.2


@dataclass(frozen=True)
class ArchitectureSpec:
    """One SAE architecture.

    Attributes:
        name: Lower-kebab id.
        version: Goes up whenever trained weights can change.
        config: Frozen dataclass; its fields are the entry's `config` keys.
        build: `build(config, *, site, generator)` -> an untrained module; or `"module:attribute"`. For a wrapper also
            `base`.
        cost: `cost(config, site)` -> Cost. For a wrapper: `cost(config, site, base_cost)`. None: parameters are counted
            on a module without memory, and a step costs six dense products (a wrapper: what its base costs).
        check: `check(config, site)` -> problems, at plan time.
        parent: Whether an entry may or must start from another entry's checkpoint. The harness copies the weights.
        wraps: True means it takes another architecture as base (`base` is the built module, its weights already
            loaded). Its entries start from another entry.
        tags: `signed_latents`, `batch_coupled`, `grouped_latents`, `raw_units` (reads x as it is, never normalised),
            `control` (never ranked, no budget), `shuffled_decoder` (the rows are another's in another order: a score
            that an order leaves alone is null).
        side: Values a token, by name, that `encode` leaves for `decode` beside the codes: `{"mean": 1, "scale": 1}`.
            They count in the price of a code. What is not declared here is refused.
        train: What `auto` means.
        description: One line.
    """

    name: str
    version: str
    config: type
    build: Reference
    cost: Callable[..., Cost] | None = None
    check: Callable[[Any, Site], Sequence[Problem]] = lambda config, site: ()
    parent: Literal["none", "optional", "required"] = "none"
    wraps: bool = False
    tags: frozenset[str] = frozenset()
    side: Mapping[str, int] = field(default_factory=dict)
    train: TrainDefaults = TrainDefaults()
    description: str = ""


@dataclass(frozen=True)
class DatasetSpec:
    """One source of training or evaluation data.

    Attributes:
        name: Lower-kebab id.
        version: Goes up whenever the content can change for equal options.
        options: Frozen dataclass; its fields are the keys beside `plugin:`.
        kind: What `open` returns: text -> TextDataset, generated -> TokenDataset, activations / synthetic ->
            ActivationDataset.
        open: `open(options, context)`; or `"module:attribute"`.
        check: `check(options)` -> problems, at plan time (missing files, wrong ranges).
        inspect: `inspect(options)` -> Findings, at plan time and in seconds: what the material is like. Asked when
            `check` finds nothing.
        recipe: `recipe(options)` -> JSON-ready facts beyond the options that decide the content (file manifest, package
            versions).
        site: `site(options)` -> Site, for activations and synthetic.
        bases: `bases(options)` -> names of other datasets of the suite that it reads.
        uses_model: True when its content depends on the language model.
        description: One line.
    """

    name: str
    version: str
    options: type
    kind: Literal["text", "generated", "activations", "synthetic"]
    open: Reference
    check: Callable[[Any], Sequence[Problem]] = lambda options: ()
    inspect: Callable[[Any], Findings] = lambda options: Findings()
    recipe: Callable[[Any], Mapping[str, Any]] = lambda options: {}
    site: Callable[[Any], Site] | None = None
    bases: Callable[[Any], Sequence[str]] = lambda options: ()
    uses_model: bool = False
    description: str = ""


@dataclass(frozen=True)
class StreamSpec:
    """A stream of a metric's own: the language model's activations on token sequences that the metric makes.

    Attributes:
        name: Lower-kebab; no other stream's.
        sequences: `sequences(model: TextModel, length, generator)` -> token ids `[at most length]` int64, BOS first,
            one sequence after another; or `"module:attribute"`. Read until they hold `evaluation.density_tokens` tokens
            that are not special. Equal generators give equal sequences.
    """

    name: str
    sequences: Reference


@dataclass(frozen=True)
class CellMetricSpec:
    """A family of metric ids computed together in one streaming pass over one SAE.

    Attributes:
        name: Lower-kebab id of the family's code, such as `reconstruction`.
        version: Goes up whenever a value can change.
        provides: The ids it computes.
        make: `make(context: MetricContext)` -> CellMetric; or `"module:attribute"`.
        streams: Streams it reads; empty for metrics that only read the context.
        fields: Fields it needs on those streams.
        core: Part of `metrics: core`.
        adds: Streams of its own; other metrics may read them too.
    """

    name: str
    version: str
    provides: tuple[MetricInfo, ...]
    make: Reference
    streams: tuple[Stream, ...] = ()
    fields: tuple[Field, ...] = ()
    core: bool = False
    adds: tuple[StreamSpec, ...] = ()


@dataclass(frozen=True)
class GroupMetricSpec:
    """Metric ids computed over the checkpoints of cells that differ in `vary` alone.

    Attributes:
        make: `make()` -> GroupMetric; or `"module:attribute"`.
        vary: What the members differ in, one or several of `init_seed`, `data_seed`, `dataset` (that they learnt from),
            `hookpoint` and `entry` (architecture, config and parent, at operating points of one name). All else that
            decides the weights is equal, whatever the entries are called.
        streams: Members get `codes` on a held-out stream.
    """

    name: str
    version: str
    provides: tuple[MetricInfo, ...]
    make: Reference
    vary: frozenset[str] = field(default_factory=lambda: frozenset({"init_seed"}))
    core: bool = False
    streams: bool = False


MetricSpec = CellMetricSpec | GroupMetricSpec
