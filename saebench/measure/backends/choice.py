"""Which numeric back end this machine takes, why, and which others can run on it. Loads torch when it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from saebench.api.errors import SuiteError


@dataclass(frozen=True)
class Choice:
    """What this machine would take, and what can be measured on it.

    Attributes:
        auto: The back end that fits.
        why: For people.
        in_use: What a run takes now: `auto`, or what SAEBENCH_BACKEND names.
        features: Of the CPU and torch, as the choice sees them.
        measured: Back ends to measure.
        left_out: Reason by name of the others.
    """

    auto: str
    why: str
    in_use: str
    features: tuple[str, ...]
    measured: tuple[str, ...]
    left_out: Mapping[str, str]


def choice(device: str, only: Sequence[str] = ()) -> Choice:
    """What this machine takes and what can be measured on it.

    Args:
        device: Where steps are taken.
        only: Back ends to measure; all that can run by default.

    Raises:
        SuiteError: An unknown back end, or one that cannot run here.
    """
    from saebench.nn.kernels import backends

    features = backends.cpu_features()
    left_out = {}
    for name in backends.BACKENDS:
        reason = _cannot(name, device, features)
        if reason is not None:
            left_out[name] = reason
    can = [name for name in backends.BACKENDS if name not in left_out]
    for name in only:
        if name not in backends.BACKENDS:
            raise SuiteError(f"--backend {name}: no such back end. Use one of {', '.join(backends.BACKENDS)}.")
        if name in left_out:
            raise SuiteError(f"--backend {name}: {left_out[name]}. What can run here: {', '.join(can)}.")
    try:
        in_use = backends.current(device)
    except ValueError as error:
        raise SuiteError(str(error)) from error
    measured = tuple(name for name in can if not only or name in only)
    return Choice(backends.best(device), _why(device, features), in_use, tuple(sorted(features)), measured, left_out)


@contextmanager
def forced(name: str | None, device: str) -> Iterator[None]:
    """Works on one back end inside the block; None leaves the choice as it is.

    Raises:
        SuiteError: An unknown back end (also in SAEBENCH_BACKEND), or one that cannot run here.
    """
    from saebench.nn.kernels import backends

    choice(device, () if name is None else (name,))
    with backends.force(name):
        yield


def _cannot(name: str, device: str, features: frozenset[str]) -> str | None:
    if name == "plain":
        return None
    if not device.startswith("cpu"):
        return f"runs on a CPU only, and the device is {device}"
    if "onednn" not in features:
        return "this torch was built without oneDNN"
    if name == "bf16-screen" and "bf16" not in features:
        return (
            "no units for bfloat16 products are listed for this CPU (avx512_bf16, amx_bf16 or bf16), "
            "and torch would emulate them"
        )
    return None


def _why(device: str, features: frozenset[str]) -> str:
    if not device.startswith("cpu"):
        return f"on {device} every product is torch's own"
    if "bf16" in features:
        return "the CPU has units for bfloat16 products"
    if "onednn" not in features:
        return "this torch was built without oneDNN"
    if "mkl-narrow" in features:
        return (
            "the CPU has AVX-512 but no units for bfloat16, and torch's own product (MKL) leaves AVX-512 unused on it"
        )
    return (
        "no units for bfloat16 products are listed for this CPU, "
        "and oneDNN has no wider vectors than torch's own product"
    )
