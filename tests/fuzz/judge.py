"""The verdict on one input: fine, refused in plain lines, or a bug (any other exception, too long, too much memory,
unprintable).
"""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from saebench.api.errors import SaebenchError

CPU_S = 10.0
MEMORY_MB = 2000
LINE = 1100


class Hang(BaseException):
    """An input took more than `CPU_S` of processor time."""


@dataclass
class Verdict:
    """`bug` is None where all is well; `refused` the message of a refusal."""

    bug: str | None
    refused: str | None
    seconds: float
    details: str = ""


def peak_mb() -> float:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def _stop(*_: object) -> None:
    raise Hang


def judge(call: Callable[[], object]) -> Verdict:
    """Runs `call` under the limits."""
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    started, memory = time.process_time(), peak_mb()
    bug: str | None = None
    refused: str | None = None
    details = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except SaebenchError as error:
        refused = str(error)
        lines = refused.splitlines()
        if not refused.strip():
            bug = "a refusal without words"
        elif len(lines) > 60 or any(len(line) > LINE for line in lines):
            bug = f"a refusal of {len(lines)} lines, the longest of {max(map(len, lines))} characters"
        elif "this is a bug" in refused.lower():
            bug = refused[:300]
    except Hang:
        bug, details = f"more than {CPU_S:.0f} s of CPU", traceback.format_exc()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in last if "saebench" in frame.filename] or last
        bug = f"{type(error).__name__} at {own[-1].filename.rpartition('/')[2]}:{own[-1].lineno}: {str(error)[:200]}"
        details = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if bug is None and peak_mb() - memory > MEMORY_MB:
        bug = f"{peak_mb() - memory:,.0f} MB of memory"
    return Verdict(bug, refused, time.process_time() - started, details)
