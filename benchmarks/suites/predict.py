"""What the suites for real models will cost, as comments in their files. Needs neither weights nor a network.

python benchmarks/suites/predict.py            print what a plan predicts, beside what the files say
python benchmarks/suites/predict.py --write    write it into the files; this machine is measured for it (minutes)
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
CARD = "h100"
COMMENT = re.compile(r"# Predicted for .*\n(?:#   .*\n)*")
SUITES = ("gpt2", "pythia-160m", "llama-3.2-1b", "qwen2.5-3b", "gemma-2-2b")
MODELS = (
    "openai-community/gpt2",
    "EleutherAI/pythia-160m",
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen2.5-3B",
    "google/gemma-2-2b",
)
_COMMIT = "0" * 40


def fill_hub(cache: Path) -> None:
    """A cache of the hub that holds the configs beside this file, and nothing else of their models."""
    for model in MODELS:
        repository = cache / f"models--{model.replace('/', '--')}"
        snapshot = repository / "snapshots" / _COMMIT
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(_COMMIT)
        shutil.copyfile(HERE / "configs" / model.partition("/")[2] / "config.json", snapshot / "config.json")


@contextmanager
def hub() -> Iterator[None]:
    """Inside, the hub is such a cache."""
    with tempfile.TemporaryDirectory() as folder:
        fill_hub(Path(folder))
        with patch("huggingface_hub.constants.HF_HUB_CACHE", folder):
            yield


def on_card(suite: str) -> tuple[float, float]:
    """Hours on one card, and GB of memory in it."""
    from saebench.jobs import plan_suite

    predicted = plan_suite(HERE / f"{suite}.yaml", device=CARD).estimate
    return predicted.seconds / 3600, predicted.device_memory_bytes / 1e9


def on_this_cpu(suite: str, *, measure: bool) -> str:
    """Hours and GB of memory. Where it has less memory than that, the hours are of interest all the same."""
    from saebench.jobs import plan_suite
    from saebench.measure.machine import host

    with patch("saebench.jobs.memory_short", return_value=None):
        predicted = plan_suite(HERE / f"{suite}.yaml", measure=measure).estimate
    machine = host("cpu")
    how = "its steps measured" if predicted.basis["source"] == "measured" else "at an assumed 0.1 TFLOP/s"
    return (
        f"{machine['cores']} cores of {machine['cpu']} ({machine['cpu_path']}), {how}: "
        f"{predicted.seconds / 3600:,.0f} h, {predicted.memory_bytes / 1e9:.0f} GB"
    )


def comment(suite: str, *, measure: bool) -> str:
    """The lines of a suite's file."""
    hours, memory = on_card(suite)
    return (
        f"# Predicted for one {CARD.upper()} of 80 GB: {hours:,.1f} h, {memory:.0f} GB on it. No card was measured.\n"
        f"#   {on_this_cpu(suite, measure=measure)}.\n"
        "#   predict.py beside this file makes these lines anew.\n"
    )


def said(suite: str) -> tuple[float, ...]:
    """What the file says of one card: hours, GB on it.

    Raises:
        ValueError: It says nothing.
    """
    text = (HERE / f"{suite}.yaml").read_text("utf-8")
    found = re.search(r"# Predicted for one .*: ([\d.,]+) h, (\d+) GB on it", text)
    if found is None:
        raise ValueError(f"{suite}.yaml has no prediction: run predict.py --write")
    return tuple(float(number.replace(",", "")) for number in found.groups())


def write(suite: str, lines: str) -> None:
    """Puts the lines in place of the older ones, or above `schema:`; and the hours into the README."""
    path = HERE / f"{suite}.yaml"
    text = COMMENT.sub("", path.read_text("utf-8"))
    path.write_text(text.replace("schema: 1\n", f"{lines}schema: 1\n", 1), "utf-8")
    readme = HERE / "README.md"
    row = re.compile(rf"(\| `{re.escape(suite)}\.yaml` .*\| )[^|]*( \|\n)")
    readme.write_text(row.sub(rf"\g<1>{said(suite)[0]:g} h\g<2>", readme.read_text("utf-8")), "utf-8")


def main() -> None:
    """Plans every suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--no-measure", action="store_true", help="assume how fast this machine is")
    parser.add_argument("suites", nargs="*", default=SUITES)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with hub():
        for suite in arguments.suites:
            if arguments.write:
                write(suite, comment(suite, measure=not arguments.no_measure))
            print(f"{suite}: says {said(suite)}, predicted {tuple(round(value, 1) for value in on_card(suite))}")


if __name__ == "__main__":
    main()
