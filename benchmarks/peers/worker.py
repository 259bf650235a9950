"""One contender in one process.

Reads a request a line on stdin, answers a line of JSON on stdout; what libraries print goes to stderr.

`{"do": "turn", "steps": 5}` -> `{"seconds": [...]}`; `{"do": "end"}` -> `{"facts": {...}, "peak_bytes": ...}`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
import traceback
from itertools import cycle
from pathlib import Path
from typing import Any


def _resident(name: str) -> int:
    """Bytes of a line of /proc/self/status (VmHWM: the most there ever was; VmRSS: now); elsewhere the most there ever
    was.
    """
    try:
        with Path("/proc/self/status").open() as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith(name + ":"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request = json.loads(sys.stdin.readline())
    import numpy as np
    import torch
    from contenders import DEAD_SHARE, Setting, Unavailable

    torch.set_num_threads(request["threads"])
    device = torch.device(request["device"])

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    size = request["shape"]
    try:
        rows = torch.from_numpy(np.load(request["activations"])).to(device)
        dead = torch.empty(0, dtype=torch.long)
        if request["options"].get("dead"):
            order = torch.randperm(size["d_sae"], generator=torch.Generator().manual_seed(1))
            dead = order[: int(DEAD_SHARE * size["d_sae"])].sort().values
        module = importlib.import_module("contenders." + request["module"])
        setting = Setting(
            **size, options=request["options"], batches=rows.split(size["batch"]), device=device, dead=dead.to(device)
        )
        base = _resident("VmRSS")
        contender = module.build(setting)
        batches = cycle(setting.batches)
        for _ in range(request["warmup"]):
            contender.prepare()
            contender.step(next(batches))
        wait()
    except (Unavailable, ImportError) as error:
        answer({"unavailable": f"{type(error).__name__}: {error}"})
        return
    except Exception as error:  # noqa: BLE001 - sent to the parent process
        answer({"failed": f"{type(error).__name__}: {error}"})
        traceback.print_exc()
        return
    answer({"ready": True})
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if message["do"] == "end":
                peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")
                answer({"peak_bytes": peak, "base_bytes": base, "facts": contender.facts()})
                contender.close()
                os._exit(0)  # a contender may have a thread that waits for its next batch
            gc.collect()
            gc.disable()  # no turn pays for another's garbage
            seconds = []
            contender.before_turn()
            if contender.turn is not None:
                answer({"seconds": contender.turn(1 + message["steps"])[1:]})
                continue
            for timed in [False] + [True] * message["steps"]:  # the first step brings weights back into the caches
                batch = next(batches)
                contender.prepare()
                wait()
                started = time.perf_counter()
                contender.step(batch)
                wait()
                if timed:
                    seconds.append(time.perf_counter() - started)
            answer({"seconds": seconds})
        except Exception as error:  # noqa: BLE001 - sent to the parent process
            answer({"failed": f"{type(error).__name__}: {error}"})
            traceback.print_exc()
            return


if __name__ == "__main__":
    main()
