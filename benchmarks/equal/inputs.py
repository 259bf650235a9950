"""Makes what the suites beside this file read:

`python inputs.py FOLDER` (a model folder, two texts, a matrix; 20 MB).
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import saebench

TOPICS = {
    "network": "socket packet router port stream client server host protocol frame address buffer",
    "graph": "node edge tree path walk cycle degree root leaf weight search depth",
}
EVERYWHERE = "the of and a to in is it for with reads writes opens closes returns raises when where each value"


def main(folder: Path) -> None:
    """Equal bytes every time, so that two versions of saebench read the same."""
    folder.mkdir(parents=True, exist_ok=True)
    (source,) = Path(saebench.__file__).parent.glob("*/docs_lm")
    model = folder / "model"
    model.mkdir(exist_ok=True)
    for file in sorted(source.glob("*.json")):
        shutil.copyfile(file, model / file.name)
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.99.unused.weight"] = torch.zeros(4, 4)  # what `load: {allow_unused: ...}` is for
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    rng = random.Random(0)
    for topic, words in TOPICS.items():
        vocabulary = f"{EVERYWHERE} {words}".split()
        texts = (" ".join(rng.choices(vocabulary, k=60)) for _ in range(400))
        (folder / f"{topic}.jsonl").write_text("".join(json.dumps({"text": f"{text}."}) + "\n" for text in texts))
    numbers = np.random.default_rng(0)
    directions = numbers.standard_normal((64, 24))
    codes = numbers.gamma(1.0, 1.0, (6_000, 64)) * (numbers.random((6_000, 64)) < 0.08)
    np.save(folder / "matrix.npy", (codes @ directions).astype(np.float32))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
