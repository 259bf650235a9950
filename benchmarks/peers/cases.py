"""What is compared with what, and the bars. One case is one run of interleaved rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of one training step."""

    d_in: int
    d_sae: int
    k: int
    batch: int


@dataclass(frozen=True)
class Entry:
    """One contender of a case.

    Attributes:
        name: In the table.
        module: File under `contenders/`.
        shape: Sizes.
        options: The contender's own.
        warmup: Steps before anything is timed. Ours is given more: what its selection costs depends on how far the
            weights are trained.
        env: Environment variables of its process.
    """

    name: str
    module: str
    shape: Shape
    options: Mapping[str, Any] = field(default_factory=dict)
    warmup: int = 3
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bar:
    """A figure to hold.

    Attributes:
        what: `faster`: time of `against` over time of `of`, at least `must`. `time`: time of `of` over time of
            `against`, at most `must`.
            `memory`: the same for peak memory.
        times: `against` counts so many times: twelve runs of one.
        of: Whose figure.
        against: One or more contenders; of several the best counts.
        must, goal: The issue's bars; None for a figure that is only told.
    """

    what: str
    of: str
    against: tuple[str, ...]
    must: float | None = None
    goal: float | None = None
    times: int = 1


@dataclass(frozen=True)
class Case:
    """One table.

    Attributes:
        name: On the command line.
        title: Above the table.
        entries: Contenders; the first is the one that others are compared with.
        bars: Figures to hold.
        steps: Timed steps a turn.
        axes: For `scaling`: how entries lie along each axis.
        apart: Each library's contenders are measured among themselves, one library after the other: less memory at
            a time.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    bars: tuple[Bar, ...] = ()
    steps: int = 5
    axes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    apart: bool = False


A1, A2 = Shape(512, 8192, 32, 2048), Shape(768, 24576, 32, 4096)
OURS, SPARSIFY, SAELENS, SAELENS_SPARSE, DICTIONARY_LEARNING = (
    "saebench", "sparsify", "SAELens", "SAELens, sparse activations", "dictionary_learning",
)  # fmt: skip
FLOAT32, ONEDNN, ONEDNN_READY, BFLOAT16 = (
    "product float32 (torch.mm)", "product float32 (oneDNN)", "product float32 (oneDNN, operands ready)",
    "product bfloat16 (torch.mm)",
)  # fmt: skip
WARMUP = 30


def _ours(shape: Shape, name: str = OURS, env: Mapping[str, str] | None = None, **options: Any) -> Entry:
    return Entry(name, "ours", shape, options, WARMUP, env or {})


def _loop(name: str, **options: Any) -> Entry:
    return Entry(name, "harness", A1, options, WARMUP)


def _products(shape: Shape) -> tuple[Entry, ...]:
    kinds = {FLOAT32: "float32", ONEDNN: "onednn", ONEDNN_READY: "onednn-ready", BFLOAT16: "bfloat16"}
    return tuple(Entry(name, "product", shape, {"kind": kind}) for name, kind in kinds.items())


def _step(name: str, shape: Shape, title: str, must: tuple[float, ...], goal: tuple[float, ...], steps: int) -> Case:
    """`must` and `goal`: against the fastest peer, SAELens, dictionary_learning, the float32 product."""
    peers = (SPARSIFY, SAELENS, SAELENS_SPARSE, DICTIONARY_LEARNING)
    bars = [
        Bar("faster", OURS, peers, must[0], goal[0]),
        Bar("faster", OURS, (SAELENS,), must[1], goal[1]),
        Bar("faster", OURS, (DICTIONARY_LEARNING,), must[2], goal[2]),
        Bar("faster", OURS, (SAELENS_SPARSE,)),
        Bar("time", OURS, (FLOAT32,), must[3], goal[3]),
        Bar("time", OURS, (ONEDNN,)),
        Bar("time", OURS, (BFLOAT16,)),
    ]
    entries = (
        _ours(shape),
        Entry(SPARSIFY, "sparsify", shape),
        Entry(SAELENS, "saelens", shape),
        Entry(SAELENS_SPARSE, "saelens", shape, {"sparse": True}),
        Entry(DICTIONARY_LEARNING, "dictionary_learning", shape),
        *_products(shape),
    )
    return Case(name, title, entries, tuple(bars), steps)


def _aux(name: str, shape: Shape, title: str, steps: int) -> Case:
    """Each library with 20 % of its latents dead against its own step without."""
    kinds = {
        OURS: ("ours", {}),
        SPARSIFY: ("sparsify", {"auxk": 1 / 32}),
        SAELENS: ("saelens", {}),
        DICTIONARY_LEARNING: ("dictionary_learning", {}),
    }
    entries, bars = [], []
    for library, (module, options) in kinds.items():
        dead = f"{library}, 20 % dead"
        warmup = WARMUP if module == "ours" else 3
        entries += [
            Entry(library, module, shape, options, warmup),
            Entry(dead, module, shape, {**options, "dead": True}, warmup),
        ]
        bars.append(Bar("time", dead, (library,), *((1.3, 1.15) if library == OURS else ())))
    return Case(name, title, tuple(entries), tuple(bars), steps, apart=True)


def _scaling() -> Case:
    """Ours alone, one size at a time moved away from the first case."""
    axes: dict[str, dict[str, float]] = {}
    entries: dict[str, Entry] = {}
    moves: dict[str, tuple[int, ...]] = {
        "d_sae": (2048, 4096, 8192, 16384, 32768, 65536, 131072),
        "k": (8, 16, 32, 64, 128, 256),
        "batch": (512, 1024, 2048, 4096, 8192),
    }
    for axis, values in moves.items():
        axes[axis] = {}
        for value in values:
            shape = Shape(**{**A1.__dict__, axis: value})
            name = f"d_sae {shape.d_sae}, k {shape.k}, batch {shape.batch}"
            entries[name] = _ours(shape, name)
            axes[axis][name] = value
    axes["cells"] = {}
    for cells in (1, 2, 4, 8):
        name = f"{cells} cells in one cohort"
        entries[name] = _loop(name, cells=cells)
        axes["cells"][name] = cells
    return Case("scaling", "Cost as it grows: saebench TopK, d_in 512", tuple(entries.values()), (), 3, axes)


def cases() -> dict[str, Case]:
    """All, by name."""
    jumprelu = {"architecture": "jumprelu"}
    made = (
        _step("A1", A1, "TopK step, d_in 512, d_sae 8192, k 32, batch 2048", (2.8, 8, 8, 0.85), (3.5, 11, 11, 0.7), 5),
        _step("A2", A2, "TopK step, d_in 768, d_sae 24576, k 32, batch 4096", (4, 15, 10, 0.62), (5, 20, 15, 0.5), 2),
        _aux("aux-A1", A1, "20 % of latents dead, AuxK active, d_sae 8192", 5),
        _aux("aux-A2", A2, "20 % of latents dead, AuxK active, d_sae 24576", 2),
        Case(
            "jumprelu",
            "JumpReLU step at L0 32, d_in 512, d_sae 8192, batch 2048",
            (
                _ours(A1, **jumprelu),
                Entry(SAELENS, "saelens", A1, jumprelu),
                Entry(DICTIONARY_LEARNING, "dictionary_learning", A1, jumprelu),
                *_products(A1)[:1],
            ),
            (
                Bar("faster", OURS, (SAELENS,), 6, 10),
                Bar("faster", OURS, (DICTIONARY_LEARNING,), 6, 10),
                Bar("time", OURS, (FLOAT32,)),
            ),
        ),
        Case(
            "no-bf16",
            "TopK step without bfloat16 units (oneDNN float32), d_in 512, d_sae 8192",
            (_ours(A1, env={"SAEBENCH_BACKEND": "onednn"}), *_products(A1)[:3]),
            (
                Bar("time", OURS, (ONEDNN,), 1.75, 1.4),
                Bar("time", OURS, (ONEDNN_READY,)),
                Bar("time", OURS, (FLOAT32,)),
            ),
        ),
        Case(
            "expander",
            "Expander step, degree 7, d_in 768, d_sae 24576, k 32, batch 4096",
            (_ours(A2, architecture="expander", config={"degree": 7}), *_products(A2)[:1]),
            (Bar("time", OURS, (FLOAT32,), 0.4, 0.25),),
            3,
        ),
        Case(
            "memory",
            "Peak memory of a TopK step, d_in 768, d_sae 24576, k 32, batch 4096",
            (
                _ours(A2),
                Entry(SPARSIFY, "sparsify", A2),
                Entry(SAELENS, "saelens", A2),
                Entry(DICTIONARY_LEARNING, "dictionary_learning", A2),
            ),
            (Bar("memory", OURS, (SPARSIFY,), 0.65, 0.5), Bar("memory", OURS, (SAELENS,), 0.35, 0.25)),
            1,
        ),
        Case(
            "harness",
            "The whole loop over a store on disk against bare steps, d_in 512, d_sae 8192",
            (_ours(A1), _loop("train_pass, one cell", cells=1)),
            (Bar("time", "train_pass, one cell", (OURS,), 1.08, 1.03),),
            10,
        ),
        Case(
            "cohort",
            "12 cells in one cohort against 12 runs of one; each batch first costs about one SAE step (ideal 13/24 "
            "= 0.54)",
            (_loop("one cell", cells=1, live=True), _loop("12 cells", cells=12, live=True)),
            (Bar("time", "12 cells", ("one cell",), 0.6, 0.56, 12),),
            3,
        ),
        _scaling(),
    )
    return {case.name: case for case in made}
