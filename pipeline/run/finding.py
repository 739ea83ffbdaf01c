"""From what a user calls a run, a config file or an output, to its config and its directory."""

from __future__ import annotations

from typing import Final

from pipeline.config import RunConfig, read_config
from pipeline.run.outputs import run_url_of
from pipeline.run.prepare import storage_options
from pipeline.run.show import config_of_output, run_url_of_output
from pipeline.storage import ObjectStore, StorageOptions

_CONFIG_SUFFIXES: Final = (".yaml", ".yml")


def is_config(run: str) -> bool:
    """Whether a run is named by its config file."""
    return run.endswith(_CONFIG_SUFFIXES)


def find_config(run: str) -> RunConfig:
    """Give the config of a run.

    Raises:
        ConfigError: the file is wrong.
        VolumeNotFound: no run has written that output.
    """
    return read_config(run) if is_config(run) else config_of_output(run, StorageOptions())


def find_directory(run: str) -> ObjectStore:
    """Open the directory of a run; raises as `find_config`."""
    if is_config(run):
        config = read_config(run)
        return ObjectStore(run_url_of(config), storage_options(config.storage))
    options = storage_options(config_of_output(run, StorageOptions()).storage)
    return ObjectStore(run_url_of_output(run, StorageOptions()), options)


def with_workers(config: RunConfig, workers: int | None) -> RunConfig:
    """Give a config with another number of worker processes; None: as it is."""
    if workers is None:
        return config
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": workers})})
