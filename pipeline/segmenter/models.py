"""Model files: where they are, what they say of themselves, and the core's errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import (
    ConfigError,
    DeviceLost,
    DeviceOutOfMemory,
    OurError,
    Sam4emError,
    WeightsError,
)

if TYPE_CHECKING:
    from sam4em_core.header import CheckpointHeader


def count_gpus() -> int:
    """Count the GPUs that a model could use in this process; imports torch, makes no CUDA context."""
    from sam4em_core.segmenter import count_gpus as count  # noqa: PLC0415

    return count()


def shipped_models() -> list[str]:
    """Name the models that come with the package."""
    return sorted(path.stem for path in _models_folder().glob("*.safetensors"))


def shipped_unets() -> list[str]:
    """Name the U-Nets of signed distances that come with the package: starts for a training, no segmenters."""
    return sorted(path.stem for path in _unets_folder().glob("*.safetensors"))


def _unets_folder() -> Path:
    return _models_folder() / "unets"


def _models_folder() -> Path:
    return Path(str(resources.files("sam4em_core"))) / "models"


def model_path(name_or_path: str) -> Path:
    """Find a model or a U-Net: a shipped one by name, else a file.

    Raises:
        WeightsError: there is neither such a model nor such a file.
    """
    names = shipped_models()
    if name_or_path in names:
        return _models_folder() / f"{name_or_path}.safetensors"
    if name_or_path in shipped_unets():
        return _unets_folder() / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    if not path.is_file():
        raise WeightsError(
            f"loading model {name_or_path!r}: no shipped model has this name and no file is there; "
            f"shipped models: {', '.join(names) or 'none'}"
        )
    return path


def model_header(name_or_path: str) -> CheckpointHeader:
    """Read what a model says about itself, without loading it.

    Raises:
        WeightsError: there is no such model, or its file is unreadable.
    """
    from sam4em_core import header  # noqa: PLC0415

    path = model_path(name_or_path)
    with core_errors(f"reading model {name_or_path!r}"):
        return header.read_checkpoint_header(path)


def describe_model(name_or_path: str) -> dict[str, Any]:
    """Give what the file of a model, or of a U-Net by itself, says: plain values.

    Raises:
        WeightsError: there is no such file, or it is unreadable.
    """
    from sam4em_core import header  # noqa: PLC0415

    path = model_path(name_or_path)
    with core_errors(f"reading model {name_or_path!r}"):
        found = header.read_unet_header(path) if header.holds_unet(path) else header.read_checkpoint_header(path)
    return {"file_bytes": path.stat().st_size, **found.model_dump(mode="json")}


@contextmanager
def core_errors(doing: str) -> Iterator[None]:
    """Turn the core's errors into ours; `doing` says what was being done.

    Raises:
        Sam4emError: the family that the core's error belongs to.
    """
    from sam4em_core import errors as core  # noqa: PLC0415

    families: list[tuple[type[core.CoreError], type[Sam4emError]]] = [
        (core.CheckpointError, WeightsError),
        (core.DeviceMemoryError, DeviceOutOfMemory),
        (core.DeviceLostError, DeviceLost),
        (core.CoreConfigError, ConfigError),
        (core.NonFiniteError, WeightsError),
        (core.CoreError, OurError),
    ]
    try:
        yield
    except core.CoreError as error:
        family = next(ours for theirs, ours in families if isinstance(error, theirs))
        raise family(f"{doing}: {error}") from error
