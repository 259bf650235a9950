"""Names of places in a model: `layers.N`, dotted module paths, and what other libraries call them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from saebench.api.errors import SuiteError
from saebench.lm.trace import Trace

_SHORT = re.compile(r"layers\.(0|-?[1-9][0-9]{0,8})((?:\.\w+)*)")
_FOREIGN = re.compile(
    r"(?:(?:.*[._])?(?:layers|layer|blocks|block|h)[._\[]?)?([-+]?\d{1,9}(?:_\d{1,9})?)\]?((?:\.\w+)*)(?:\[0\])?"
)
"""A block of another library: `model.layers[2].output`, `transformer.h.2.mlp`, `blocks.2.hook_resid_post`, `layer_2`,
`2`, and numbers as no module has them: `layers.02`, `layers.+2`."""
_PARTS = {
    "attn": ("self_attn", "attn", "attention", "self_attention", "temporal_block", "mixer"),
    "mlp": ("mlp", "ffn", "feed_forward", "mlp_block", "fc2", "channel_mixer"),
    "ln1": ("input_layernorm", "ln_1", "norm_1", "ln1", "temporal_pre_norm", "norm"),
    "ln2": ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "norm_2", "ln2", "channel_pre_norm"),
}
_AFTER = {"attn": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
"""Where a block has norms behind its parts too (Gemma 2), these give what is added to the residual stream."""


@dataclass(frozen=True)
class Hookpoint:
    """A place in a model: dotted module path, the name the suite gave it, and the width of its output."""

    path: str
    name: str
    d: int


def find_hookpoint(trace: Trace, name: str, model_id: str) -> Hookpoint:
    """The place that `layers.N`, `layers.N.rest` or a dotted module path means.

    Raises:
        SuiteError: It does not exist (with the range, or the nearest names), never runs, runs more than once, or has no
            `[.., tokens, width]` output.
    """
    path = name
    short = _SHORT.fullmatch(name)
    last = trace.n_layers - 1
    if name not in trace.modules and short and trace.blocks:
        index = int(short[1])
        if not 0 <= index <= last:
            hint = f"Did you mean 'layers.{trace.n_layers + index}{short[2]}'? " if -trace.n_layers <= index < 0 else ""
            text = (
                f"model '{model_id}' has no hookpoint '{name}': its {trace.n_layers} blocks are layers.0 to "
                f"layers.{last}. {hint or 'Use one of these.'}"
            )
            raise SuiteError(text.rstrip())
        path = f"{trace.blocks}.{index}{short[2]}"
    if path not in trace.modules:
        layers = f"layers.0 to layers.{last}, or " if trace.n_layers else ""
        raise SuiteError(
            f"model '{model_id}' has no hookpoint '{name}'. {_hint(trace, name, path)}Allowed: "
            f"{layers}a dotted module path."
        )
    ran = trace.ran.get(path)
    if ran is None:
        inner = [other for other in _usable(trace) if other.startswith(f"{path}.")]
        hint = f"Choose one of its parts, such as '{inner[0]}'." if inner else _choose(trace, path)
        raise SuiteError(f"hookpoint '{name}' of model '{model_id}' is a container that is never called itself. {hint}")
    if not _has_rows(trace, path):
        raise SuiteError(
            f"hookpoint '{name}' of model '{model_id}' puts out "
            f"{list(ran.shape) if ran.shape else 'no tensor of numbers'}; "
            f"an SAE needs [sequences, tokens, width]. {_choose(trace, path)}"
        )
    if ran.calls != 1:
        raise SuiteError(
            f"hookpoint '{name}' of model '{model_id}' runs {ran.calls} times in one forward; "
            f"an SAE needs a place that runs once. {_choose(trace, path)}"
        )
    assert ran.shape is not None
    return Hookpoint(path, name, ran.shape[2])


def default_hookpoint(trace: Trace) -> str:
    """The middle block, or where its output is no row for each token, a part of it that has rows."""
    middle = f"{trace.blocks}.{trace.n_layers // 2}" if trace.blocks else ""
    if middle and not _works(trace, middle):
        return next((_short(trace, path) for path in _near(trace, middle)), f"layers.{trace.n_layers // 2}")
    return f"layers.{trace.n_layers // 2}"


def _has_rows(trace: Trace, path: str) -> bool:
    shape = trace.ran[path].shape
    return shape is not None and len(shape) == 3 and shape[:2] == trace.tokens


def _works(trace: Trace, path: str) -> bool:
    return path in trace.ran and _has_rows(trace, path) and trace.ran[path].calls == 1


def _usable(trace: Trace) -> list[str]:
    return [path for path in trace.ran if path and _works(trace, path)]


def _short(trace: Trace, path: str) -> str:
    """`layers.1.mlp` for a path in a block."""
    inside = trace.blocks is not None and path.startswith(f"{trace.blocks}.")
    return f"layers.{path.removeprefix(f'{trace.blocks}.')}" if inside else path


def _near(trace: Trace, path: str) -> Iterator[str]:
    """Places that work near a path: its block, that block's MLP and attention, then the same of other blocks."""
    if trace.blocks is None:
        return
    index = re.match(rf"{re.escape(trace.blocks)}\.(\d+)", path)
    for number in sorted(range(trace.n_layers), key=lambda n: abs(n - int(index[1] if index else 0))):
        block = f"{trace.blocks}.{number}"
        names = ["", *(f".{part}" for kind in ("mlp", "attn") for part in _PARTS[kind])]
        yield from (f"{block}{name}" for name in names if _works(trace, f"{block}{name}"))


def _choose(trace: Trace, path: str) -> str:
    near = [_short(trace, other) for other, _ in zip(_near(trace, path), range(2), strict=False)] or _usable(trace)[:2]
    return f"Use {' or '.join(repr(name) for name in near)}." if near else "This model has no such place."


def _hint(trace: Trace, name: str, path: str) -> str:
    translated = _translated(trace, name)
    if translated is not None:
        return translated
    known = sorted({f"layers.{index}" for index in range(trace.n_layers)} | (trace.ran.keys() - {""}))
    near = difflib.get_close_matches(name, known, n=3) or difflib.get_close_matches(path, known, n=3)
    return f"Did you mean {' or '.join(repr(word) for word in near)}? " if near else ""


def _translated(trace: Trace, name: str) -> str | None:
    """A hint for the name that another library gives a place, or None."""
    whole = {"hook_embed": "embed", "ln_final.hook_normalized": "norm", "ln_final": "norm"}
    if name in whole:
        place = _edge(trace, whole[name])
        return _mean(place) if place else None
    found = _FOREIGN.fullmatch(name)
    if found is None or trace.blocks is None:
        return None
    index = int(found[1])
    index = index + trace.n_layers if index < 0 else index
    if not 0 <= index < trace.n_layers:
        return f"Its {trace.n_layers} blocks are layers.0 to layers.{trace.n_layers - 1}. "
    rest = found[2].removesuffix(".output")
    part = re.fullmatch(r"\.(attn|mlp|ln1|ln2)\.hook_(\w+)", rest)
    if part:
        return _part_hint(trace, index, part[1], part[2])
    hook = re.fullmatch(r"\.hook_(\w+)", rest)
    kind = next((kind for kind, names in _PARTS.items() if rest[1:] in (kind, *names)), None)
    if kind is not None and not _works(trace, f"{trace.blocks}.{index}{rest}"):
        return _part_hint(trace, index, kind, "itself")
    if hook is None:
        return _mean(f"layers.{index}{rest}") if not rest or _works(trace, f"{trace.blocks}.{index}{rest}") else None
    if hook[1] == "resid_post":
        return _mean(f"layers.{index}")
    if hook[1] == "resid_pre":
        before = f"layers.{index - 1}" if index else _edge(trace, "embed")
        return _mean(before) if before else None
    if hook[1] in {"attn_out", "mlp_out"}:
        return _part_hint(trace, index, hook[1].removesuffix("_out"), "out")
    return f"'{hook[1]}' is an inner value that no module puts out. The nearest place is 'layers.{index}'. "


def _part_hint(trace: Trace, index: int, kind: str, hook: str) -> str:
    block = f"{trace.blocks}.{index}"
    behind = f"{block}.{_AFTER.get(kind, '')}"
    if hook == "out" and f"{block}.pre_feedforward_layernorm" in trace.ran and _works(trace, behind):
        return _mean(_short(trace, behind))
    part = next((path for name in _PARTS[kind] if _works(trace, path := f"{block}.{name}")), None)
    if part is None:
        return _mean(f"layers.{index}")
    if kind == "attn" and hook in "qkv":
        inner = f"{part}.{hook}_proj"
        return _mean(_short(trace, inner if _works(trace, inner) else part))
    if hook in {"z", "pre", "post", "pattern", "attn_scores", "result"}:
        return (
            f"'{hook}' is an inner value that no module puts out in rows. "
            f"The nearest place is {_short(trace, part)!r}. "
        )
    return _mean(_short(trace, part))


def _mean(name: str) -> str:
    return f"Did you mean {name!r}? "


def _edge(trace: Trace, which: str) -> str | None:
    """The token embedding, or the norm behind the last block."""
    if trace.blocks is None:
        return None
    outside = [path for path in _usable(trace) if not path.startswith(trace.blocks)]
    if which == "embed":
        names = ("embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings", "embed")
        return next((path for name in names for path in outside if path.rpartition(".")[2] == name), None)
    return next((path for path in reversed(outside) if "norm" in path or path.endswith(("ln_f", "ln_out"))), None)
