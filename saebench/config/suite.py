"""Reads a suite file: built-in names, `extends`, validation with file and line of every key."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from saebench.api.errors import SuiteError
from saebench.base.canonical import digest
from saebench.base.near import hint, nearest
from saebench.config.checks import check_suite
from saebench.config.problems import Marks, Path, Position, Problems, position, show
from saebench.config.schema import SuiteConfig
from saebench.config.values import NAME_PATTERN
from saebench.config.yaml_lines import read_yaml

_MAX_EXTENDS = 16


@dataclass(frozen=True)
class Suite:
    """A validated suite.

    Attributes:
        config: The file, defaults filled in.
        source: How the reader called it: path or built-in name.
        digest: SHA-256 of what the config says; comments, layout and `extends` do not matter.
        marks: File and line of every key.
    """

    config: SuiteConfig
    source: str
    digest: str
    marks: Marks

    def where(self, *path: str | int) -> str:
        """`file:line` of a key, or of the nearest thing around it: `where("entries", 2, "config", "k")`."""
        return str(position(self.marks, path))


def builtin_suites() -> dict[str, FilePath]:
    """The packaged suites by name."""
    folder = FilePath(str(files("saebench"))) / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_suite(source: str | FilePath) -> Suite:
    """Reads and validates a suite.

    Args:
        source: A path, or the name of a built-in suite.

    Raises:
        SuiteError: Everything wrong, one line a problem.
    """
    data, marks = _read(source, None, ())
    extended = data.pop("extends", None)
    if "name" not in data and re.match(NAME_PATTERN, FilePath(source).stem):
        data["name"] = FilePath(source).stem
    problems = Problems(lambda *at: str(position(marks, at)))
    try:
        config = SuiteConfig.model_validate(data)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            # a list whose elements are all wrong is called too short as well
            if item["type"] != "too_short" or not item["input"]:
                _explain(item, problems)
        problems.stop()
        raise
    check_suite(config, problems)
    problems.stop()
    return Suite(config.model_copy(update={"extends": extended}), str(source), _digest(config), marks)


_NEWER = frozenset({"dtype", "device_map", "attention", "trust_remote_code", "quantisation"})
"""Keys of a model that the first leaderboards did not have."""


def _digest(config: SuiteConfig) -> str:
    """Of what a suite says. A key that came or went with a newer version changes no digest of a suite without it."""
    facts = config.model_dump(mode="json", by_alias=True, exclude={"extends"})
    if facts["child_controls"]:
        del facts["child_controls"]
    for entry in facts["entries"]:
        if entry["init_from"] is not None:
            entry["init_from"]["keep"] = None
    for said, model in zip(facts["models"], config.models, strict=True):
        for block, values in ((model, said), (model.load, said["load"])):
            for name in _NEWER & values.keys():
                if getattr(block, name) == type(block).model_fields[name].default:
                    del values[name]
    return digest(facts)


def _locate(source: str | FilePath, beside: FilePath | None) -> tuple[FilePath, str]:
    """The file behind a path or a built-in name, and how messages call it."""
    text = str(source)
    is_path = isinstance(source, FilePath) or FilePath(text).suffix in (".yaml", ".yml") or "/" in text or "\\" in text
    builtin = builtin_suites()
    if "\0" in text:
        raise SuiteError(f"{show(text)}: no file has a NUL in its name.")
    if not is_path and text in builtin:
        return builtin[text], f"{text}.yaml"
    path = FilePath(text) if beside is None else beside / text
    try:
        if path.exists() and (is_path or path.is_file()):
            return path, path.as_posix()
    except OSError as error:  # a name that no file system takes, a folder that may not be entered
        raise SuiteError(f"{show(text)}: cannot be read ({error.strerror}).") from error
    names = ", ".join(builtin) or "none"
    folder = path.parent
    try:
        beside_it = (
            [str(folder / item.name) if str(folder) != "." else item.name for item in sorted(folder.glob("*.y*ml"))]
            if folder.is_dir()
            else []
        )
    except OSError:
        beside_it = []
    close = nearest(path.as_posix(), beside_it) or nearest(text, builtin)
    what = "no such file" if is_path else "no built-in suite and no file of this name"
    raise SuiteError(
        f"{path.as_posix()}: {what}. {f'Did you mean {close!r}? ' if close else ''}Built-in suites: {names}."
    )


def _read(
    source: str | FilePath, beside: FilePath | None, seen: tuple[FilePath, ...]
) -> tuple[dict[str, Any], dict[Path, Position]]:
    """One file with what it extends merged under it."""
    path, shown = _locate(source, beside)
    data, marks = read_yaml(path, shown)
    other = data.get("extends")
    if other is None:
        return data, marks
    at = f"{marks[('extends',)]} extends"
    if not isinstance(other, str) or not other:
        raise SuiteError(
            f"{at}: got {show(other)} but the path of a suite, relative to this file, or a built-in name is expected."
        )
    seen = (*seen, path.resolve())
    if len(seen) > _MAX_EXTENDS:
        raise SuiteError(f"{at}: a chain of more than {_MAX_EXTENDS} suites. Let it extend the last of them.")
    try:
        target, target_shown = _locate(other, path.parent)
    except SuiteError as error:
        raise SuiteError(f"{at}: {error}") from None
    if target.resolve() in seen:
        raise SuiteError(f"{at}: {target_shown} extends this file in turn. Cut the circle.")
    base, base_marks = _read(other, path.parent, seen)
    # each suite has its own name, or two suites would write into one folder
    base.pop("name", None)
    base.pop("extends", None)
    merged, merged_marks = _merge(base, base_marks, data, marks, ())
    return merged, {**merged_marks, (): marks[()]}


def _merge(
    base: dict[str, Any], base_marks: Marks, over: dict[str, Any], over_marks: Marks, path: Path
) -> tuple[dict[str, Any], dict[Path, Position]]:
    """Deep merge of mappings; all else is replaced. A dataset whose plugin changes is replaced with its options."""
    result = dict(base)
    marks = {at: mark for at, mark in base_marks.items() if at[: len(path)] == path}
    for key, value in over.items():
        here = (*path, key)
        below = result.get(key)
        other_plugin = (
            path == ("datasets",)
            and isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("plugin", below.get("plugin")) != below.get("plugin")
        )
        if isinstance(value, dict) and isinstance(below, dict) and not other_plugin:
            result[key], inner = _merge(below, base_marks, value, over_marks, here)
        else:
            result[key] = value
            inner = {at: mark for at, mark in over_marks.items() if at[: len(here)] == here}
        marks = {at: mark for at, mark in marks.items() if at[: len(here)] != here}
        marks |= inner
        if here in over_marks:
            marks[here] = over_marks[here]
    return result, marks


# what pydantic found, as a reader of the file would say it

_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "int_type": "a whole number",
    "float_type": "a number",
}
_MISSING = {
    "budget": "Add `budget: {primary: tokens, tokens: 150_000}`.",
    "entries": "Add `entries:` with at least one contender: "
    "`- {name: topk, architecture: topk, dataset: docs, config: {d_sae: 512, k: 16}}`.",
    "datasets": "Add `datasets:` such as `docs: {plugin: docs}`.",
    "plugin": "Add `plugin:` with the name of a dataset plugin; `saebench plugins` lists them.",
    "name": "Add `name:`; it names the run's folder.",
}


def _explain(item: Mapping[str, Any], problems: Problems) -> None:
    """One pydantic error as one line."""
    path = tuple(part for part in item["loc"] if part != "[key]")
    kind, value = item["type"], item["input"]
    context = item.get("ctx", {})
    if kind == "extra_forbidden":
        message = f"unknown key. {hint(str(path[-1]), _keys(path[:-1]))}"
    elif kind == "missing":
        message = "is missing. " + _MISSING.get(str(path[-1]), f"Add `{path[-1]}:`.")
    elif kind == "literal_error":
        choices = [choice.strip(" '") for choice in context["expected"].replace(" or ", ",").split(",")]
        if choices == ["1"]:
            message = f"got {show(value)} but this saebench reads schema 1. Write `schema: 1`."
        else:
            message = f"got {show(value)} but one of {', '.join(choices)} is expected." + (
                f" Did you mean {close!r}?" if (close := nearest(str(value), choices)) else ""
            )
    elif kind == "string_pattern_mismatch":
        allowed = "letters, digits, '.', '_' and '-' are allowed, a letter or digit first, no '.' last."
        message = f"got {show(value)} but {allowed}"
    elif kind == "string_too_long":
        message = f"got a name of {len(value)} bytes; at most {context['max_length']} are allowed, as it names files."
    elif kind in ("too_short", "string_too_short"):
        message = "is empty; at least one is expected."
    elif kind == "saebench":
        message = item["msg"]
    else:
        message = f"got {show(value)} but {_EXPECTED.get(kind, item['msg'])} is expected."
        if path[-1] == "init_from":
            message = f"got {show(value)} but the name of an entry is expected, or {{entry: NAME, at: {{KEY: VALUE}}}}."
        if kind == "tuple_type" and isinstance(value, str | int | float):
            message += f" Write [{value}]."
    problems.add(path, message)


def _keys(path: Path) -> list[str]:
    """The keys allowed in the mapping at `path`, from the models' annotations."""
    model: Any = SuiteConfig
    for part in path:
        if isinstance(part, str) and isinstance(model, type) and issubclass(model, BaseModel):
            found = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
            model = _inner(found.annotation) if found else None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _inner(annotation: Any) -> Any:
    """The model inside `tuple[M, ...]`, `dict[str, M]`, `M | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _inner(get_args(annotation)[0])
    if origin in (tuple, dict, Union, types.UnionType):
        found = [_inner(part) for part in get_args(annotation)]
        return next((part for part in found if isinstance(part, type) and issubclass(part, BaseModel)), None)
    return annotation
