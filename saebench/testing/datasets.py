"""What every dataset must do. `check_dataset` reads a little of it, several times over."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saebench.api import DatasetSpec, Document, Problem, is_blank
from saebench.api.specs import Findings, Site
from saebench.base.canonical import digest
from saebench.host.fitting import misfit, misshapen_spec
from saebench.testing.check import Check, Rule, Skip, global_random_untouched, run_rules
from saebench.testing.dataset_case import BATCH, TOKENS, DatasetCase
from saebench.testing.dataset_context import StandInContext

HUGE_NORM, HUGE_DOCUMENT = 1_000, 10_000_000
"""A vector so many times as long as the median carries the variance of thousands; a document of so many characters is a
file that was not split."""


def _spec_is_well_formed(case: DatasetCase) -> None:
    if wrong := misshapen_spec(case.spec):
        raise AssertionError(wrong)
    options = case.spec.options
    assert dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen, (  # type: ignore[attr-defined]
        "options must be a frozen dataclass"
    )
    problems = list(case.spec.check(case.options))
    if wrong := misfit(problems, Sequence[Problem], "check"):
        raise AssertionError(wrong)
    assert not problems, f"check refuses the options that it is tried with: {problems[0].key}: {problems[0].message}"
    if wrong := misfit(case.spec.inspect(case.options), Findings, "inspect"):
        raise AssertionError(wrong)
    if case.spec.kind in ("activations", "synthetic"):
        assert case.spec.site is not None, f"kind {case.spec.kind} needs `site`"
        if wrong := misfit(case.spec.site(case.options), Site, "site"):
            raise AssertionError(wrong)


def _recipe_is_json(case: DatasetCase) -> None:
    first, second = case.spec.recipe(case.options), case.spec.recipe(case.options)
    try:
        assert digest(dict(first)) == digest(dict(second)), "recipe gives something else at its second call"
        json.dumps(dataclasses.asdict(case.options))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"recipe and options must be plain JSON ({error})") from error


def _opens(case: DatasetCase) -> None:
    data = case.data
    needed = {"text": ("documents",), "generated": ("sequences",)}.get(case.spec.kind, ("n_tokens", "batches"))
    missing = [name for name in (*needed, "manifest") if not callable(getattr(data, name, None))]
    missing += [name for name in ("d_in", "dictionary") if "batches" in needed and not hasattr(data, name)]
    assert not missing, f"what open returns has no {', '.join(missing)}"
    try:
        digest(dict(data.manifest()))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"manifest must be plain JSON ({error})") from error


def _items_have_types(case: DatasetCase) -> None:
    import torch

    data, context, n = case.data, StandInContext(), 0
    for item in case.read(data):
        if case.spec.kind == "text":
            assert isinstance(item, Document) and isinstance(item.text, str), (
                f"documents() must give saebench.api.Document, got {type(item).__name__}"
            )
            n += 1
        elif case.spec.kind == "generated":
            assert torch.is_tensor(item) and item.ndim == 1 and item.dtype == torch.int64, (
                "sequences must give one-dimensional int64 tensors"
            )
            assert len(item) <= context.length and int(item[0]) == context.model.bos_id, (
                f"a sequence has at most {context.length} tokens and begins with BOS"
            )
            assert int(item.min()) >= 0 and int(item.max()) < context.model.vocab_size, "a token id is not the model's"
            n += len(item)
        else:
            x = item.x
            assert x.dtype == torch.float32 and x.ndim == 2 and x.shape[1] == data.d_in, (
                f"batches must give float32 [at most {BATCH}, {data.d_in}], got {x.dtype} {list(x.shape)}"
            )
            assert len(x) <= BATCH, f"a batch of {len(x)} where at most {BATCH} were asked for"
            assert torch.isfinite(x).all(), "a vector is not finite"
            n += len(x)
    assert n, "the training part has nothing in it"
    if case.spec.kind in ("activations", "synthetic"):
        assert n <= TOKENS, f"{n} vectors where at most {TOKENS} were asked for"
        assert case.spec.site is not None and case.spec.site(case.options).d_in == data.d_in, (
            "site says another width than d_in of what open returns"
        )


def _random_is_given(case: DatasetCase) -> None:
    with global_random_untouched("open, or reading it,"):
        case.prints(case.opened())


def _deterministic(case: DatasetCase) -> None:
    assert case.prints(case.data) == case.first, "a second reading gives other items, or another order"
    assert case.prints(case.opened()) == case.first, "opened again, it gives other items, or another order"


def _resumable(case: DatasetCase) -> None:
    next(iter(case.read(case.data)), None)
    assert case.prints(case.data) == case.first, "after a reading that was given up, the next one does not start anew"
    kept: dict[str, bytes] = {}
    case.prints(case.opened(context=StandInContext(kept)))
    if kept:
        assert case.prints(case.opened(context=StandInContext(kept))) == case.first, (
            "what context.keep kept gives other items"
        )


def _seed_orders(case: DatasetCase) -> None:
    if case.spec.kind not in ("activations", "synthetic"):
        raise Skip("the harness orders text")
    data = case.data
    assert case.prints(data, seed=0) != case.prints(data, seed=1), "batches of two seeds come in one order"


def _parts_are_apart(case: DatasetCase) -> None:
    if case.spec.kind == "text":
        raise Skip("the harness parts text")
    data = case.data
    train, held_out = set(case.prints(data)), set(case.prints(data, "held-out"))
    assert held_out, "the held-out part has nothing in it"
    assert not train & held_out, f"{len(train & held_out)} items are in both parts"


def _nothing_asked(case: DatasetCase) -> None:
    if case.spec.kind == "text":
        raise Skip("documents are not asked for by number")
    given = sum(len(getattr(item, "x", item)) for item in case.read(case.data, amount=0))
    assert not given, f"{given} tokens or vectors where none was asked for"


def _no_odd_items(case: DatasetCase) -> None:
    import torch

    items = list(case.read(case.data))
    if case.spec.kind == "text":
        for item in items:
            assert not is_blank(item.text), f"document {item.name or item.digest[:8]} has no text"
            assert len(item.text) <= HUGE_DOCUMENT, f"document {item.name} has {len(item.text):,} characters"
    elif case.spec.kind == "generated":
        assert all(len(item) > 1 for item in items), "a sequence has BOS alone"
    else:
        assert all(len(item.x) for item in items), "a batch has no row"
        norms = torch.cat([item.x for item in items]).norm(dim=1)
        assert float(norms.max()) <= HUGE_NORM * float(norms.median()), (
            f"a vector is {float(norms.max() / norms.median()):,.0f} times as long as the median"
        )


def _recipe_covers_files(case: DatasetCase) -> None:
    """The files that options name: other content under the same name is another recipe."""
    named = {
        field.name: Path(value)
        for field in dataclasses.fields(case.options)
        if isinstance(value := getattr(case.options, field.name), str | Path) and str(value) and Path(value).exists()
    }
    if not named:
        raise Skip("no option names a file or a folder that exists")
    for name, path in named.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
            for file in [copy] if copy.is_file() else [file for file in sorted(copy.rglob("*")) if file.is_file()]:
                _change_text(file)
            kind = type(getattr(case.options, name))
            other = dataclasses.replace(case.options, **{name: kind(copy)})
            try:
                changed = case.prints(case.opened(other)) != case.first
            except Exception as error:
                raise Skip(f"a changed copy of {path.name} cannot be read ({type(error).__name__})") from error
            if changed:
                same = digest(dict(case.spec.recipe(other))) == digest(dict(case.spec.recipe(case.options)))
                assert not same, f"other content of option '{name}' gives the same recipe"


def _change_text(file: Path) -> None:
    """Swaps two letters' places in all of a text, which leaves JSON, CSV and the like what they are."""
    try:
        text = file.read_text("utf-8")
    except (UnicodeDecodeError, OSError):
        return
    head, middle, tail = text[: len(text) // 4], text[len(text) // 4 : -8 or None], text[-8:]
    file.write_text(head + middle.replace("a ", "a: ").replace("s ", "s, ") + tail, "utf-8")


RULES: tuple[Rule[DatasetCase], ...] = (
    Rule(
        "the spec is well formed, and its options a frozen dataclass",
        _spec_is_well_formed,
        "Write @dataclass(frozen=True) above the options; check gives Problem(key, message) for options that cannot be "
        "used; kinds activations and synthetic have a site.",
    ),
    Rule(
        "the recipe is plain JSON and always the same",
        _recipe_is_json,
        "Leave times, paths and objects out: the recipe is in the ids of cells.",
        (_spec_is_well_formed,),
    ),
    Rule(
        "what open returns has the methods of its kind",
        _opens,
        "text: documents(); generated: sequences(); activations, synthetic: d_in, dictionary, n_tokens(), batches(); "
        "all: manifest().",
        (_spec_is_well_formed,),
    ),
    Rule(
        "items have the declared types, and as many as were asked for",
        _items_have_types,
        "Document(text), int64 token ids with BOS first, or ActivationBatch(x, x) of float32 rows.",
        (_opens,),
    ),
    Rule(
        "random numbers come from a generator of its own",
        _random_is_given,
        "Use torch.Generator().manual_seed(...) with context.seed, or the seed that batches is given.",
        (_items_have_types,),
    ),
    Rule(
        "readings are equal",
        _deterministic,
        "Sort what a folder lists, iterate over no set, and seed each reading anew.",
        (_items_have_types, _random_is_given),
    ),
    Rule(
        "a reading that was given up changes nothing, nor does what was kept",
        _resumable,
        "Give a new iterator at each call; what context.keep keeps is all that later readings need.",
        (_items_have_types, _random_is_given, _deterministic),
    ),
    Rule(
        "another seed gives another order",
        _seed_orders,
        "Shuffle with a generator seeded by the seed that batches is given.",
        (_items_have_types, _random_is_given, _deterministic),
    ),
    Rule(
        "no item is in both parts",
        _parts_are_apart,
        "split_of(document_digest(text)) says which part the text of a row belongs to; or draw the parts from two "
        "seeds.",
        (_items_have_types, _deterministic),
    ),
    Rule(
        "where nothing is asked for, nothing is given",
        _nothing_asked,
        "Test the amount before the first item.",
        (_items_have_types,),
    ),
    Rule(
        "no item is empty or huge",
        _no_odd_items,
        "Leave blank documents out, split what was joined, and look at vectors far longer than the others (attention "
        "sinks, wrong units).",
        (_items_have_types,),
    ),
    Rule(
        "the recipe covers the files that options name",
        _recipe_covers_files,
        "recipe=lambda options: {'files': file_manifest(paths, root)} (saebench.api.file_manifest).",
        (_items_have_types, _recipe_is_json, _deterministic),
    ),
)


def check_dataset(spec: DatasetSpec, options: Any) -> Sequence[Check]:
    """Runs every check on one dataset; a stand-in takes the place of the language model and of other datasets.

    Args:
        spec: The dataset.
        options: An instance of `spec.options`, of something small.

    Returns:
        One `Check` per rule; none of them failed when the contract holds.
    """
    return run_rules(RULES, DatasetCase(spec, options))
