"""What was measured of the back ends, as a page of 80 columns with advice, and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from tabulate import tabulate

from saebench.measure import machine
from saebench.measure.backends.choice import Choice
from saebench.measure.backends.run import Measured, Timing
from saebench.plan.print import format_bytes

WIDTH = 80
WORTH = 1.1
"""A back end that measured faster by less than this is not worth forcing."""
BUSY = 0.15
"""Where rounds lie further apart than this, the machine did something else as well."""
RECORDED = "facts.training.numerics.backend"


def page(measured: Sequence[Measured], chosen: Choice, *, device: str, rounds: int, threads: int) -> str:
    """Tables, then advice."""
    lines = [
        f"{device}, {threads} thread{'s' * (threads > 1)}, medians of {rounds} interleaved round{'s' * (rounds > 1)}"
    ]
    for one in measured:
        lines += ["", *wrap(one.shape.title, WIDTH), *_table(one, chosen).splitlines()]
        for timing in one.timings:
            if timing.failed is not None:
                lines += _wrapped(f"{timing.backend} was not measured: {timing.failed}")
    lines += ["", "* what `auto` takes. ratio: to it, of step times. product: x W^T alone.", ""]
    for text in advice(measured, chosen):
        lines += _wrapped(text)
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _table(one: Measured, chosen: Choice) -> str:
    first = _yardstick(one, chosen)
    rows = []
    for timing in one.timings:
        if timing.failed is not None:
            rows.append([timing.backend, "-", "-", "-", "-", "-"])
            continue
        fallback = "-" if timing.fallback_rows is None else f"{100 * timing.fallback_rows:.2f} %"
        peak = "-" if timing.peak_bytes is None else format_bytes(timing.peak_bytes)
        name = timing.backend + " *" * (timing.backend == chosen.auto)
        rows.append([name, _ms(timing.step_s), f"{timing.against(first):.2f}", _ms(timing.product_s), fallback, peak])
    return tabulate(
        rows,
        ["back end", "step ms", "ratio", "product ms", "fallback rows", "memory"],
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", "right", "right", "right", "right", "right"),
    )


def _ms(seconds: float) -> str:
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 1000 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _good(one: Measured) -> list[Timing]:
    return [timing for timing in one.timings if timing.failed is None]


def _yardstick(one: Measured, chosen: Choice) -> Timing:
    """What ratios are to: `auto`'s choice, or the first where that was not measured."""
    good = _good(one)
    return next((timing for timing in good if timing.backend == chosen.auto), good[0])


def advice(measured: Sequence[Measured], chosen: Choice) -> list[str]:
    """What to do, in plain words."""
    from saebench.nn.kernels.backends import VARIABLE

    said = [f"`auto` takes {chosen.auto} here: {chosen.why}."]
    if chosen.in_use != chosen.auto:
        said.append(
            f"{VARIABLE}={chosen.in_use} is set: runs started from here take {chosen.in_use}. Unset it to go back to "
            f"{chosen.auto}."
        )
    compared = [one for one in measured if _yardstick(one, chosen).backend == chosen.auto and len(_good(one)) > 1]
    faster: dict[str, list[str]] = {}
    open_cases = 0
    for one in compared:
        auto = _yardstick(one, chosen)
        best = min(_good(one), key=lambda timing: timing.against(auto))
        if auto.against(best) > WORTH and best.is_faster_than(auto):
            faster.setdefault(best.backend, []).append(f"{auto.against(best):.2f}x at {one.shape.title}")
        elif auto.against(best) > WORTH:
            open_cases += 1
            said.append(
                f"{best.backend} looked faster ({auto.against(best):.2f}x at {one.shape.title}), but in too few rounds "
                "to trust: "
                "measure again, with more --rounds."
            )
    for name, where in faster.items():
        said.append(
            f"{name} measured faster than {chosen.auto}: {'; '.join(where)}. To force it: {VARIABLE}={name} saebench "
            "run SUITE. "
            f"A run has one back end for all its cells, so force it only where it wins at what costs most."
        )
    decided = len(compared) - open_cases
    if compared and not faster:
        said.append(
            "No other back end measured faster by more than 10 %: leave the choice as it is."
            if decided == len(compared)
            else "Until then, leave the choice as it is."
        )
    elif decided > sum(map(len, faster.values())):
        said.append(f"At the other shapes {chosen.auto} is the fastest, or within 10 % of it.")
    if not compared:
        said.append("Nothing was compared with it, so there is nothing to advise.")
    for name, reason in chosen.left_out.items():
        said.append(f"{name} was not measured: {reason}.")
    busy = max((timing.spread for one in measured for timing in _good(one)), default=0.0)
    if busy > BUSY:
        said.append(f"Rounds lay up to {100 * busy:.0f} % apart: the machine was busy. Measure again when it is quiet.")
    said.append(
        f"Every record says which back end trained it ({RECORDED}), forced or not. All of them choose the same "
        "latents; "
        "values may differ in the last bit, so compare only runs of one back end bit for bit."
    )
    return said


def as_data(measured: Sequence[Measured], chosen: Choice, *, device: str, rounds: int, threads: int) -> dict[str, Any]:
    """One JSON object: seconds and bytes; what is missing is null with a reason."""
    return {
        "date": machine.now(),
        "host": machine.host(device),
        "versions": machine.versions(),
        "threads": threads,
        "rounds": rounds,
        "auto": chosen.auto,
        "why": chosen.why,
        "in_use": chosen.in_use,
        "features": list(chosen.features),
        "left_out": dict(chosen.left_out),
        "shapes": [_shape_data(one, chosen) for one in measured],
        "advice": advice(measured, chosen),
    }


def _shape_data(one: Measured, chosen: Choice) -> dict[str, Any]:
    shape, first = one.shape, _yardstick(one, chosen)
    return {
        "architecture": shape.part.architecture,
        "config": dict(shape.part.config),
        "d_in": shape.d_in,
        "d_sae": shape.d_sae,
        "l0": shape.l0,
        "batch": shape.train.batch,
        "ratio_to": first.backend,
        "backends": {timing.backend: _timing_data(timing, first) for timing in one.timings},
    }


def _timing_data(timing: Timing, first: Timing) -> Mapping[str, Any]:
    keys = ("step_s", "ratio", "product_s", "fallback_rows", "peak_bytes")
    if timing.failed is not None:
        return {**dict.fromkeys(keys), "reason": timing.failed}
    values = (timing.step_s, timing.against(first), timing.product_s, timing.fallback_rows, timing.peak_bytes)
    reason = {} if timing.fallback_rows is not None else {"reason": "fallback_rows: the architecture does not tell"}
    rounds = {"step_rounds_s": list(timing.rounds_s), "product_rounds_s": list(timing.product_rounds_s)}
    return {**dict(zip(keys, values, strict=True)), **rounds, **reason}
