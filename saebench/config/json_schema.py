"""JSON schema of the suite file, for editors that check YAML while it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from saebench.config.checks import LEARNING_RATE
from saebench.config.options import options_schema
from saebench.config.schema import SuiteConfig


class _Catalog(Protocol):
    """The part of the host's catalog that is read here."""

    @property
    def architectures(self) -> Mapping[str, Any]: ...
    @property
    def datasets(self) -> Mapping[str, Any]: ...


def json_schema(catalog: _Catalog | None = None) -> dict[str, Any]:
    """JSON schema of a suite.

    Args:
        catalog: With it, an entry's `config` and a dataset's options are described plugin by plugin.
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
    if catalog is not None:
        rules = []
        for name, registered in sorted(catalog.architectures.items()):
            # sweep and a parent may supply required keys, so only names and types are told here
            config = {**options_schema(registered.spec.config), "required": []}
            rules.append(_when("architecture", name, {"config": config, "tune": _tune(config, definitions)}))
        definitions["EntryConfig"]["allOf"] = rules
        rules = []
        for name, registered in sorted(catalog.datasets.items()):
            options = options_schema(registered.spec.options)
            options["properties"] = {"plugin": {"const": name}, **options["properties"]}
            rules.append({"if": {"properties": {"plugin": {"const": name}}, "required": ["plugin"]}, "then": options})
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
