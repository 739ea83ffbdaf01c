"""What a checkpoint says about itself: everything a plan needs, readable without torch.

A checkpoint is one safetensors file. Its layout: 8 bytes little-endian length, a JSON object of that length, then the
tensors (source: safetensors, format description). Our header is one JSON text under `__metadata__.sam4em`; under
`__metadata__.sam4em-unet` where the file holds a U-Net alone.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sam4em_core.config import (
    SIDE_MULTIPLE,
    Factors,
    ModelConfig,
    Nanometers,
    Positive,
    Spacing,
    UnetConfig,
    describe_validation,
)
from sam4em_core.errors import CheckpointError

FORMAT_VERSION = 1
METADATA_KEY = "sam4em"
UNET_METADATA_KEY = "sam4em-unet"

# Official SAM2 weights come as pickles; what is ours is a safetensors file.
BASE_SUFFIXES = (".pt", ".pth")

# Source: safetensors, format description: a header is at most 100 MB.
MAX_HEADER_BYTES = 100_000_000

Probability = Annotated[float, Field(gt=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Normalization(BaseModel):
    """How stored grey values become the model's [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["percentile", "dtype-range"] = "percentile"
    """`percentile`: two percentiles of the whole volume become 0 and 1. `dtype-range`: the data type's range does."""
    low: Percent = 0.5
    """Percentile that becomes 0."""
    high: Percent = 99.5
    """Percentile that becomes 1."""


class CheckpointHeader(BaseModel):
    """What a checkpoint says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    """Version of this header."""
    name: str = "unnamed"
    """Name of the model."""
    model: ModelConfig
    """Architecture."""
    classes: tuple[str, ...]
    """Class names in channel order."""
    thresholds: tuple[Probability, ...]
    """Probability from which a voxel is inside, per class; calibrated on the choice slices."""
    working_voxel_size_zyx_nm: tuple[Nanometers, Nanometers, Nanometers]
    """Voxel size that the model was trained at and works at."""
    accepted_voxel_size_nm: tuple[Nanometers, Nanometers]
    """Smallest and largest source voxel size that it is meant for."""
    normalization: Normalization = Normalization()
    """How grey values were brought to [0, 1]."""
    window_slices: Positive = 20
    """Slices of a z window (S)."""
    warm_up_slices: Annotated[int, Field(ge=0)] = 4
    """Slices before each window that only fill the memory (W)."""
    tile_side: Annotated[int, Field(ge=SIDE_MULTIPLE, multiple_of=SIDE_MULTIPLE)] = 256
    """Largest side of a tile, in working voxels; tiles are as much smaller as covers the volume with the fewest."""
    tile_overlap: Annotated[int, Field(ge=0)] = 32
    """Overlap of neighboring tiles, in working voxels."""
    batch_tiles: Positive = 2
    """Tiles per model call; changes rounding. Two leave few slots empty and keep a CPU's caches warm."""
    encoder_origin: Literal["random", "trained", "official"] = "trained"
    """Where the encoder's weights come from."""
    base_sha256: str = ""
    """Digest of the weights that training started from; empty: random."""
    base_name: str = ""
    """File name of the weights that training started from."""
    stored: Literal["whole", "delta"] = "whole"
    """`whole`: every tensor, adapters merged. `delta`: LoRA factors and new parts; the base is needed to load."""
    card: dict[str, str] = {}
    """Model card: data, license, command, hardware, time, scores."""

    @model_validator(mode="after")
    def _check(self) -> "CheckpointHeader":
        if len(self.classes) != self.model.num_classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {self.classes} must be {self.model.num_classes} different names")
        if len(self.thresholds) != len(self.classes):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.classes)} classes")
        if self.accepted_voxel_size_nm[0] > self.accepted_voxel_size_nm[1]:
            raise ValueError(f"accepted_voxel_size_nm {self.accepted_voxel_size_nm} runs backwards")
        if 2 * self.tile_overlap > self.tile_side:
            raise ValueError(f"tile_overlap {self.tile_overlap} is more than half of tile_side {self.tile_side}")
        if self.model.unet is not None:
            unet_factors(self.working_voxel_size_zyx_nm, self.model.unet)
        return self

    @property
    def reach_slices(self) -> int:
        """Slices beside a window that have a part in it: the warm-up where slices are stepped through."""
        return 0 if self.model.memory == "none" or self.model.needs_field else self.warm_up_slices

    def to_json(self) -> str:
        """The header as one JSON text with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    def digest(self) -> str:
        """sha256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


class UnetHeader(BaseModel):
    """What a checkpoint that holds a U-Net alone says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    """Version of this header."""
    name: str = "unnamed"
    """Name of the model."""
    unet: UnetConfig
    """Architecture, lattice and patches."""
    classes: tuple[str, ...]
    """Class names in channel order."""
    accepted_voxel_size_nm: tuple[Nanometers, Nanometers]
    """Smallest and largest source voxel size that it is meant for."""
    normalization: Normalization = Normalization()
    """How grey values were brought to [0, 1]."""
    base_sha256: str = ""
    """Digest of the weights that training started from; empty: random."""
    base_name: str = ""
    """File name of the weights that training started from."""
    card: dict[str, str] = {}
    """Model card: data, license, command, hardware, time, scores."""

    @model_validator(mode="after")
    def _check(self) -> "UnetHeader":
        if len(self.classes) != self.unet.num_classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {self.classes} must be {self.unet.num_classes} different names")
        return self

    def to_json(self) -> str:
        """The header as one JSON text with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def unet_factors(working_zyx_nm: Spacing, unet: UnetConfig) -> Factors:
    """Give the working voxels per U-Net voxel along z, y and x.

    Raises:
        ValueError: the U-Net's lattice is no whole number of working voxels.
    """
    factors = [coarse / fine for coarse, fine in zip(unet.voxel_size_zyx_nm, working_zyx_nm, strict=True)]
    whole = [round(factor) for factor in factors]
    if any(abs(factor - near) > 1e-3 or near < 1 for factor, near in zip(factors, whole, strict=True)):
        raise ValueError(
            f"the U-Net works at {unet.voxel_size_zyx_nm} nm, which is no whole number of working voxels of "
            f"{working_zyx_nm} nm"
        )
    return whole[0], whole[1], whole[2]


def read_checkpoint_header(path: str | Path) -> CheckpointHeader:
    """Read what a checkpoint says about itself, without reading a tensor.

    Raises:
        CheckpointError: the file is missing, truncated, or not a checkpoint of ours.
    """
    return parse_header(_metadata_of(Path(path), METADATA_KEY), str(path))


def read_unet_header(path: str | Path) -> UnetHeader:
    """Read what a checkpoint of a U-Net alone says about itself, without reading a tensor.

    Raises:
        CheckpointError: the file is missing, truncated, or holds no U-Net of ours.
    """
    text = _metadata_of(Path(path), UNET_METADATA_KEY)
    try:
        return UnetHeader.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"reading {path}: its header does not fit format version {FORMAT_VERSION}: {describe_validation(error)}"
        ) from error


def holds_unet(path: str | Path) -> bool:
    """Whether a checkpoint of ours holds a U-Net alone; the other kind is a network that segments.

    Raises:
        CheckpointError: the file is missing or truncated.
    """
    return UNET_METADATA_KEY in _metadata(Path(path))


_KINDS = {METADATA_KEY: "a segmenting network", UNET_METADATA_KEY: "a U-Net of signed distances alone"}


def _metadata_of(path: Path, key: str) -> str:
    texts = _metadata(path)
    if key in texts:
        return str(texts[key])
    for other, kind in _KINDS.items():
        if other in texts:
            raise CheckpointError(f"reading {path}: it holds {kind}, wanted is {_KINDS[key]}")
    raise CheckpointError(f"reading {path}: a safetensors file, but not written by sam4em (no {key!r} entry)")


def _metadata(path: Path) -> dict[str, object]:
    metadata = _read_safetensors_header(path).get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def parse_header(text: str, origin: str) -> CheckpointHeader:
    """Parse a header's JSON text; `origin` names the file in messages.

    Raises:
        CheckpointError: the text is no header, or one of another format version.
    """
    try:
        return CheckpointHeader.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"reading {origin}: its header does not fit format version {FORMAT_VERSION}: {describe_validation(error)}"
        ) from error


def _read_safetensors_header(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(size) if 2 <= size <= MAX_HEADER_BYTES else b""
    except OSError as error:
        raise CheckpointError(f"reading {path}: {error.strerror or error}") from error
    try:
        values = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"reading {path}: not a safetensors file, or truncated") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"reading {path}: not a safetensors file")
    return values


def sha256_of(path: str | Path) -> str:
    """sha256 of a file's bytes.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"reading {path}: {error.strerror or error}") from error
