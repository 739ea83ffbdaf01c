"""Overrides from the command line: dotted keys and YAML values, put into what a config file held."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pipeline.config.read import parse_yaml
from pipeline.errors import ConfigError
from pipeline.training.schema import TrainingFile


def with_overrides(values: Any, overrides: Sequence[str]) -> Any:
    """Set dotted keys in what a YAML file held; a number names an item of a list.

    A key without `training.` or another section in front is one of `training`. Sections below the first that the
    file leaves out are made; whether a key is known is for the schema to say.

    Raises:
        ConfigError: an override has no `=`, or a key on the way holds no keys of its own.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {override!r}: expected key=value, such as training.seed=3")
        _set_key(values, _whole_key(key), parse_yaml(text, f"override {override!r}"), override)
    return values


def _whole_key(key: str) -> str:
    from sam4em_core.training import TrainingConfig  # noqa: PLC0415

    first = key.partition(".")[0]
    is_short = first not in TrainingFile.model_fields and first in TrainingConfig.model_fields
    return f"training.{key}" if is_short else key


def _set_key(values: Any, key: str, value: object, override: str) -> None:
    first, *way, last = ["", *key.split(".")] if "." not in key else key.split(".")
    try:
        place = values[first] if first else values
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        close = difflib.get_close_matches(first, TrainingFile.model_fields, n=1)
        mend = f"; did you mean {close[0]!r}?" if close and close[0] != first else ""
        raise ConfigError(f"override {override!r}: there is no key {key!r} in the config{mend}") from error
