"""From a training config file to a trained model, and from a trained model to one file that stands alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from pipeline.config.read import parse_config, read_yaml
from pipeline.errors import ConfigError, StoreFull, TrainingError, WeightsError
from pipeline.segmenter import model_path
from pipeline.storage import StorageOptions
from pipeline.training.overrides import with_overrides
from pipeline.training.schema import TrainingFile
from pipeline.training.volumes import check_apart, load_volume


def run_training(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    run_dir: str | Path | None = None,
) -> Path:
    """Train a model as a config file says.

    Args:
        config_path: a YAML file.
        overrides: `key=value` pairs with dotted keys, such as `training.seed=3`.
        resume: go on from the state in the run directory.
        run_dir: where the run is written; by default what the file says.

    Returns:
        The best checkpoint.

    Raises:
        ConfigError: the file, a value, or the volumes do not fit.
        TrainingError: training cannot go on.
        WeightsError: the base or the saved state is unreadable.
        StoreFull: the run directory cannot be written.
    """
    with core_errors_of_training():
        from sam4em_core.training import TrainingConfig, train  # noqa: PLC0415

        values = with_overrides(read_yaml(config_path), overrides)
        file = parse_config(values, TrainingFile, str(config_path))
        config = parse_config(file.training, TrainingConfig, f"{config_path}: training")
        check_apart(file.volumes)
        storage = StorageOptions(**file.storage.model_dump(include={field.name for field in fields(StorageOptions)}))
        with_ids = config.target == "sdf"
        volumes = [load_volume(section, config.classes, storage, with_ids=with_ids) for section in file.volumes]
        return train(config, volumes, Path(run_dir or file.run_dir), resume=resume)


def export_model(source: str | Path, target: str | Path, *, base: str | Path | None = None) -> tuple[Path, Path]:
    """Merge a run's best checkpoint, or any checkpoint, into one file that stands alone.

    Args:
        source: a run directory, a checkpoint, or the name of a shipped model.
        target: the .safetensors file to write.
        base: official weights that the checkpoint adds to; by default they are looked for.

    Returns:
        The file and its model card.

    Raises:
        WeightsError: the source or its base is unreadable, or the target cannot be written.
    """
    with core_errors_of_training():
        from sam4em_core.export import export_checkpoint  # noqa: PLC0415

        place = Path(source)
        found = place if place.is_dir() else model_path(str(source))
        return Path(target), export_checkpoint(found, target, base=base)


@contextmanager
def core_errors_of_training() -> Iterator[None]:
    """Turn the core's errors into the pipeline's, by who must act."""
    from sam4em_core import errors as core  # noqa: PLC0415
    from sam4em_core.training import errors as training  # noqa: PLC0415

    try:
        yield
    except (core.CoreConfigError, core.ImageShapeError, training.TrainingSetupError) as error:
        raise ConfigError(str(error)) from error
    except core.CheckpointError as error:
        raise WeightsError(str(error)) from error
    except training.TrainingDiskError as error:
        raise StoreFull(str(error)) from error
    except core.CoreError as error:
        raise TrainingError(str(error)) from error
