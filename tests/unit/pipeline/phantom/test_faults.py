import numpy as np
import pytest

from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec
from pipeline.phantom.faults import expose
from pipeline.phantom.field import make_tile

LEVEL = 150.0


def exposed(shape, size_nm, **fields):
    """Expose an even grey."""
    spec = PhantomSpec(seed=3, voxel_size_zyx_nm=size_nm, section_jitter_nm=0, **{"noise_sigma": 0, **fields})
    box = Box.of_shape(shape, (7, 11, 13))
    grey = np.full(shape, LEVEL, np.float32)
    return expose(spec, make_tile(spec, box, box), grey) / LEVEL


def test_brightness_drifts_along_z_slowly_and_jumps_between_sections():
    drift = 0.1
    gain = exposed((211, 3, 3), (100.0, 20.0, 20.0), contrast_drift_fraction=drift).mean(axis=(1, 2))
    # Runs of 2 micrometers level out the jumps; the drift's own wavelength is 6 micrometers.
    slow = gain[:200].reshape(10, 20).mean(axis=1)
    assert 0.3 * drift < slow.std() < 2 * drift
    jumps = np.diff(gain)
    # Uniform numbers of a width of 0.6: the difference of two has a deviation of 0.245.
    assert 0.15 * drift < jumps.std() < 0.4 * drift


def test_brightness_drifts_across_the_plane():
    gain = exposed((1, 251, 257), (50.0, 60.0, 60.0), contrast_drift_fraction=0.1)[0]
    corners = [gain[rows, columns].mean() for rows in (slice(60), slice(-60, None)) for columns in (slice(60),)]
    assert gain.std() > 0.02
    assert abs(corners[0] - corners[1]) > 0.01
    assert np.abs(np.diff(gain, axis=0)).max() <= 1.5 / LEVEL


def test_without_drift_brightness_stays():
    assert np.ptp(exposed((19, 7, 7), (100.0, 20.0, 20.0), contrast_drift_fraction=0)) == 0


@pytest.mark.parametrize("sigma", [5.0, 20.0])
def test_noise_has_its_deviation(sigma):
    gain = exposed((11, 31, 37), (5.0, 5.0, 5.0), contrast_drift_fraction=0, noise_sigma=sigma)
    assert gain.std() * LEVEL == pytest.approx(sigma, rel=0.05)
