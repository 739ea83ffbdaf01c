"""Reading a config file: YAML -> `RunConfig`, with errors that name file, key, value and the mend."""

from __future__ import annotations

import difflib
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.clusters import KINDS
from pipeline.config.schema import RESULT_SECTIONS, RunConfig
from pipeline.errors import ConfigError

_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
# Pydantic puts the kind that was chosen into the address of a wrong value; in the file it is no level of its own.
_TAGS: Final = {"segmenter": ("threshold", "sam4em"), "cluster": KINDS}
# Keys of earlier versions, with what says the same now.
_FORMER: Final = {
    "cluster.scheduler_address": "it is cluster: {kind: scheduler, address: ...} now",
}
Model = TypeVar("Model", bound=BaseModel)


def read_config(path: str | Path, cluster: str | Path | None = None) -> RunConfig:
    """Read a run's config file.

    Args:
        path: a local YAML file.
        cluster: a file whose content stands in for the config's `cluster` section.

    Returns:
        The config with all defaults filled in.

    Raises:
        ConfigError: a file is missing, is no YAML, or a key or value is wrong.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        return parse_config(values, RunConfig, str(path))
    named = values.get("cluster")
    file = Path(path).parent / named if cluster is None and isinstance(named, str) else cluster
    if file is None:
        return parse_config(values, RunConfig, str(path))
    return parse_config({**values, "cluster": read_yaml(file)}, RunConfig, f"{path} with cluster: {file}")


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file with the safe loader.

    Raises:
        ConfigError: the file is missing, is no YAML, or gives a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"reading config {path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"reading config {path}: {error}") from error
    return parse_yaml(text, f"reading config {path}")


def parse_yaml(text: str, doing: str) -> Any:
    """Parse YAML with the safe loader.

    Args:
        text: one YAML document.
        doing: what is being done, for messages.

    Raises:
        ConfigError: the text is no YAML, or gives a key twice.
    """
    try:
        # The loader below is PyYAML's safe one.
        return yaml.load(text, _UniqueKeyLoader)  # noqa: S506
    except _RepeatedKey as error:
        raise ConfigError(f"{doing}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{doing}: not valid YAML: {error}") from error


class _RepeatedKey(yaml.YAMLError):
    """A mapping has one key twice; YAML's own reader would let the last one win."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping after comparing its keys; those merged in by `<<` may be given again."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE_TAG:
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise _RepeatedKey(
                    f"line {line}: key {key_node.value!r} stands in line {lines[key]} already; give each key once"
                )
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


def parse_config(values: Any, model: type[Model], source: str) -> Model:
    """Check values against a schema.

    Args:
        values: what the YAML file held.
        model: the pydantic class to build.
        source: what to call the file in errors.

    Raises:
        ConfigError: one line per wrong key, each with its dotted name, its value and the mend.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"reading config {source}: expected a mapping of sections, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        items = error.errors(include_url=False)
        lines = [_explain(item, model, source) for item in items if not _follows(item, items)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def digest_of(config: RunConfig) -> str:
    """Digest of the sections that change the result, as 64 hex digits of sha256."""
    chosen = config.model_dump(mode="json", include=set(RESULT_SECTIONS))
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def digest_of_section(section: BaseModel) -> str:
    """Digest of one section, as 64 hex digits of sha256."""
    return hashlib.sha256(json.dumps(section.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def _follows(item: Any, items: list[Any]) -> bool:
    """Whether "too few items" only says that the items themselves are wrong."""
    depth = len(item["loc"])
    return item["type"] == "too_short" and any(
        len(other["loc"]) > depth and other["loc"][:depth] == item["loc"] for other in items
    )


def _explain(item: Any, model: type[BaseModel], source: str) -> str:
    parts = [
        part for place, part in enumerate(item["loc"]) if place != 1 or part not in _TAGS.get(str(item["loc"][0]), ())
    ]
    key = ".".join(str(part) for part in parts) or "(whole file)"
    if item["type"] == "extra_forbidden" and key in _FORMER:
        return f"{source}: {key}: this config is of an earlier version; {_FORMER[key]}"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(known))}"
        return f"{source}: {key}: no such key; {mend}"
    if item["type"] == "missing":
        return f"{source}: {key}: missing, and it has no default"
    message = item["msg"].removeprefix("Value error, ")
    # What contradicts itself inside a section names its values already.
    found = "" if isinstance(item["input"], dict) and item["type"] == "value_error" else f"; found {item['input']!r}"
    return f"{source}: {key}: {message}{found}"


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """List the keys that are known at a place of the schema."""
    kinds: list[Any] = [model]
    for part in location:
        following: list[Any] = []
        for kind in kinds:
            following.extend(_step(kind, part))
        kinds = following or kinds
    names: list[str] = []
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.extend(kind.model_fields)
    return names


def _step(kind: Any, part: Any) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return _unpacked(field.annotation) if field else ([kind] if _is_tag(kind, part) else [])
    return []


def _is_tag(kind: type[BaseModel], part: Any) -> bool:
    field = kind.model_fields.get("kind")
    return field is not None and part in typing.get_args(field.annotation)


def _unpacked(annotation: Any) -> list[Any]:
    """Give the models inside an annotation: unions, tuples, dicts and Annotated are looked through."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation]
    models: list[Any] = []
    for argument in typing.get_args(annotation):
        models.extend(_unpacked(argument))
    return models
