"""The part of a suite file that says which language models are read, and how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema

from saebench.config.numbers import is_whole
from saebench.config.values import Auto, Block, Text, whole, wrong


class LoadConfig(Block):
    """How a model's files are read.

    Attributes:
        allow_unused: Patterns (`model.layers.3.*`) of tensors in the weight files that the model may leave unused.
        trust_remote_code: Run the Python code that lies in the model's folder. It can do whatever you can.
        quantisation: Keep the weights of linear layers in 8 or 4 bits, by bitsandbytes.
    """

    allow_unused: tuple[Text, ...] = ()
    trust_remote_code: StrictBool = False
    quantisation: Literal["8bit", "4bit"] | None = None


def _device_map(value: Any) -> Any:
    """`auto`, or a mapping of modules to devices, as pairs."""
    if value in (None, "auto") or isinstance(value, tuple):
        return value
    whole = isinstance(value, Mapping) and all(
        isinstance(name, str) and (isinstance(place, str) or (is_whole(place) and place >= 0))
        for name, place in value.items()
    )
    if not whole or not value:
        raise wrong(value, "null, auto or a mapping of modules to devices (`{'model.layers.0': 0, 'lm_head': cpu}`)")
    return tuple(value.items())


class ModelConfig(Block):
    """A language model and where it is read.

    Attributes:
        id: Built-in (`docs-lm`), a folder, or a hub id.
        revision: Of a hub id.
        hookpoints: `layers.N` (output of the N-th block) or dotted module paths.
        context: Tokens a sequence, BOS included.
        dtype: Of its weights and its forward; SAEs and scores compute in float32 whatever it is.
        device_map: Where its modules are: null: on the run's device; `auto` or a mapping: by accelerate.
        attention: `eager`, `sdpa`, `flash_attention_2`, ...; null: what transformers chooses.
        load: How its files are read.
    """

    id: Text
    revision: Text | None = None
    hookpoints: Annotated[tuple[Text, ...], Field(min_length=1)]
    context: Annotated[int, whole(2)] = 128
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device_map: Annotated[
        tuple[tuple[str, str | int], ...] | Auto | None,
        BeforeValidator(_device_map),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": [None, "auto"]},
                    {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]},
                    },
                ]
            }
        ),
    ] = None
    attention: Text | None = None
    load: LoadConfig = LoadConfig()
