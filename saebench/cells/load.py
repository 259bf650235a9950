"""How a language model's weights are loaded: what of it decides its numbers, and what a record holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from saebench.base.canonical import digest

NOT_WHOLE = "config-"
"""Begins the digest of a model that is planned from its config: its weights or its tokenizer are not here."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a weight, by dtype."""
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5}


@dataclass(frozen=True)
class LoadSettings:
    """How a language model is loaded. What is default leaves no trace in ids and records.

    Attributes:
        dtype: Of its weights and its forward. Activations and logits leave it as float32.
        attention: Transformers' name of an implementation; None: what transformers chooses.
        quantisation: `8bit`, `4bit` or None: how the weights of its linear layers are kept.
        trust_remote_code: Whether the code that lies in the model's folder is run.
        device_map: Where its modules are: `auto`, or modules with devices; None: all on the run's device.
    """

    dtype: str = "float32"
    attention: str | None = None
    quantisation: str | None = None
    trust_remote_code: bool = False
    device_map: str | tuple[tuple[str, str | int], ...] | None = None

    @property
    def is_placed(self) -> bool:
        """Whether loading itself puts the weights where they stay: they cannot be moved afterwards."""
        return self.device_map is not None or self.quantisation is not None

    @property
    def parameter_bytes(self) -> float:
        """Of one weight, about: tables of tokens keep the dtype where the others are quantised."""
        return BYTES[self.dtype] if self.quantisation is None else QUANTISED_BYTES[self.quantisation]

    def digest_with(self, files: str) -> str:
        """The digest of a model of which these files say the rest; theirs where nothing else decides a number."""
        more = self.decides()
        if not more:
            return files
        return (NOT_WHOLE if files.startswith(NOT_WHOLE) else "") + digest([files, more])

    def to_json(self) -> dict[str, Any]:
        """What is not default."""
        plain, mine = asdict(PLAIN), asdict(self)
        found = {name: value for name, value in mine.items() if value != plain[name]}
        if isinstance(self.device_map, tuple):
            found["device_map"] = dict(self.device_map)
        return found

    def decides(self) -> Mapping[str, Any]:
        """What of it can change a number, where it is not default. Where modules are is as the device: it cannot."""
        return {name: value for name, value in self.to_json().items() if name != "device_map"}


PLAIN = LoadSettings()
"""In float32, on the run's device, by transformers' own code."""
