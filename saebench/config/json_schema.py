"""JSON schema of the suite file, for editors that check YAML while it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saebench.config.checks import LEARNING_RATE
from saebench.config.options import options_schema
from saebench.config.schema import SuiteConfig


def json_schema(configs: Mapping[str, type] | None = None, options: Mapping[str, type] | None = None) -> dict[str, Any]:
    """JSON schema of a suite.

    Args:
        configs: Config class of each architecture by name: with them, an entry's `config` is described one by one.
        options: Options class of each dataset plugin by name, likewise.
    """
    schema: dict[str, Any] = SuiteConfig.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "saebench suite"
    definitions = schema["$defs"]
    init_from = definitions["InitFrom"]
    definitions["InitFrom"] = {
        "anyOf": [{"type": "string"}, init_from],
        "description": init_from.get("description", ""),
    }
    train = definitions["TrainConfig"]
    definitions["TrainConfig"] = {"anyOf": [{"const": "auto"}, train], "description": train.get("description", "")}
    if configs is not None:
        rules = []
        for name, cls in sorted(configs.items()):
            # sweep and a parent may supply required keys, so only names and types are checked here
            config = {**options_schema(cls), "required": []}
            rules.append(_when("architecture", name, {"config": config, "tune": _tune(config, definitions)}))
        definitions["EntryConfig"]["allOf"] = rules
    if options is not None:
        rules = []
        for name, cls in sorted(options.items()):
            keys = options_schema(cls)
            keys["properties"] = {"plugin": {"const": name}, **keys["properties"]}
            rules.append({"if": {"properties": {"plugin": {"const": name}}, "required": ["plugin"]}, "then": keys})
        definitions["DatasetConfig"]["allOf"] = rules
    return schema


def _tune(config: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of values by config key, and of learning rates; says nothing of `tune: null`."""
    keys = {**config["properties"], LEARNING_RATE: definitions["TrainConfig"]["anyOf"][1]["properties"]["lr"]}
    lists = {
        key: {
            "type": "array",
            "minItems": 1,
            "items": {name: part for name, part in value.items() if name != "default"},
        }
        for key, value in keys.items()
    }
    return {"properties": {"metric": {"type": "string"}, **lists}, "additionalProperties": False}


def _when(key: str, value: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": {"properties": dict(properties)}}
