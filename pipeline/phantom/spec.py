"""What a phantom is: size, voxel, seed, and how bad the microscope was."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from pipeline.errors import ConfigError
from pipeline.geometry import Box, Vector


@dataclass(frozen=True)
class PhantomSpec:
    """A synthetic EM volume. Two equal specs give the same bytes for every box."""

    seed: int = 0
    """Any integer; another seed is another piece of tissue."""
    shape_zyx: Vector = (64, 512, 512)
    """Extent in voxels. Does not change the voxels, only where the volume ends."""
    voxel_size_zyx_nm: tuple[float, float, float] = (5.0, 5.0, 5.0)
    """Voxel size in nm; 2 to 100 per axis."""
    noise_sigma: float = 9.5
    """Standard deviation of the white detector noise in grey levels (0..255) at voxels of 5 x 5 x 5 nm;
    larger voxels collect more signal (see `noise_grey`)."""
    contrast_drift_fraction: float = 0.04
    """Slow relative change of brightness along z and across the plane (one standard deviation)."""
    section_jitter_nm: float = 1.0
    """Sideways displacement of each section (one standard deviation), in nm. Image and truth move
    together, as they do where people label what the section shows."""
    missing_section_fraction: float = 0.0
    """Share of the sections whose image is blank (0). Their truth stays."""
    damaged_section_fraction: float = 0.0
    """Share of the sections with a fold, a charging band or a contrast step in the image.
    Their truth stays."""

    def __post_init__(self) -> None:
        """Refuse sizes and fractions that mean nothing.

        Raises:
            ConfigError: a field is out of range.
        """
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) <= 0:
            raise ConfigError(f"phantom: shape {self.shape_zyx} must be three positive numbers z, y, x")
        sizes = self.voxel_size_zyx_nm
        if len(sizes) != 3 or not all(2.0 <= size <= 100.0 for size in sizes):
            raise ConfigError(f"phantom: voxel size {sizes} nm must be three numbers between 2 and 100")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_fraction") and not 0.0 <= value <= 1.0:
                raise ConfigError(f"phantom: {field.name} is {value}, must lie between 0 and 1")
        if not 0.0 <= self.noise_sigma <= 100.0 or not 0.0 <= self.section_jitter_nm <= 50.0:
            raise ConfigError("phantom: noise_sigma must lie in 0..100 and section_jitter_nm in 0..50")

    @property
    def box(self) -> Box:
        """The whole volume."""
        return Box.of_shape(self.shape_zyx)

    @property
    def noise_grey(self) -> float:
        """Noise in grey levels at this voxel size: falls with the square root of the voxel's volume.

        Of a section much thicker than its pixels only two pixels' worth counts: such a section is one exposure.
        """
        z, y, x = self.voxel_size_zyx_nm
        factor = math.sqrt(125.0 / (min(z, y + x) * y * x))
        return self.noise_sigma * min(max(factor, 0.4), 1.6)
