"""Counter-based random numbers and smooth noise: the value depends on the key and the place alone.

Only additions, multiplications, shifts, comparisons and square roots touch a value. IEEE 754 rounds those
correctly, so the bytes do not depend on how an array is cut, on SIMD width or on the machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HashArray = npt.NDArray[np.uint64]
FloatArray = npt.NDArray[np.float32]
RealArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

# Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_NOISE_SCALE = 4.0
"""Brings spline noise over uniform nodes in -1..1 to a standard deviation of about one."""


def _times_golden(number: int) -> np.uint64:
    """Step the generator: a product modulo 2^64, in Python integers, which do not overflow."""
    return np.uint64(number * int(_GOLDEN) & 0xFFFFFFFFFFFFFFFF)


def mix(keys: HashArray) -> HashArray:
    """Scramble 64-bit keys (SplitMix64's finalizer)."""
    z = keys ^ (keys >> np.uint64(30))
    z *= _MIX_1
    z ^= z >> np.uint64(27)
    z *= _MIX_2
    z ^= z >> np.uint64(31)
    return z


def stream_key(seed: int, stream: int) -> HashArray:
    """Give the key, shape (1,), of one stream of random numbers."""
    base = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64) + _GOLDEN)
    return mix(base + _times_golden(stream))


def line_keys(key: HashArray, indices: IndexArray) -> HashArray:
    """Give one key per integer index (any sign), for example per section."""
    return key + indices.astype(np.uint64) * _GOLDEN


def hash_cells(key: HashArray, cells: IndexArray) -> HashArray:
    """Hash integer cell indices (any sign), shape (n, 3), to n keys."""
    coords = cells.astype(np.uint64)
    h = mix(key + coords[:, 0] * _GOLDEN)
    h = mix(h + coords[:, 1] * _GOLDEN)
    return mix(h + coords[:, 2] * _GOLDEN)


def hash_lattice(key: HashArray, axes: tuple[IndexArray, IndexArray, IndexArray]) -> HashArray:
    """Hash every node of the lattice spanned by three index axes, shape (z, y, x)."""
    z, y, x = (axis.astype(np.uint64) for axis in axes)
    planes = mix(key + z * _GOLDEN)
    rows = mix(planes[:, None] + (y * _GOLDEN)[None, :])
    return mix(rows[:, :, None] + (x * _GOLDEN)[None, None, :])


def draw(keys: HashArray, counter: int) -> RealArray:
    """Draw the `counter`-th uniform number in [0, 1) of every key."""
    bits = mix(keys + _times_golden(counter + 1))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_directions(keys: HashArray, counter: int) -> RealArray:
    """Draw a unit vector per key, shape (n, 3); uses three counters from `counter` on."""
    vectors = np.stack([draw(keys, counter + axis) * 2.0 - 1.0 for axis in range(3)], axis=1)
    return unit(vectors)


def unit(vectors: RealArray) -> RealArray:
    """Scale vectors, shape (..., 3), to length one; a null vector stays (almost) null."""
    square = vectors[..., 0] ** 2 + vectors[..., 1] ** 2 + vectors[..., 2] ** 2
    return vectors / np.sqrt(square + 1e-30)[..., None]


def gaussian_voxels(key: HashArray, axes: tuple[IndexArray, IndexArray, IndexArray]) -> FloatArray:
    """Give nearly normal white noise (sum of four uniforms), mean 0, deviation 1, at global voxel indices."""
    bits = hash_lattice(key, axes)
    quarter = np.uint64(0xFFFF)
    total = (bits & quarter) + ((bits >> np.uint64(16)) & quarter)
    total += ((bits >> np.uint64(32)) & quarter) + (bits >> np.uint64(48))
    # Four uniforms on 0..65535 have mean 131070 and deviation 65536 * sqrt(4 / 12) = 37837.2.
    return (total.astype(np.float32) - np.float32(131070.0)) * np.float32(1.0 / 37837.2)


def _spline_taps(positions: RealArray) -> tuple[IndexArray, IndexArray, list[FloatArray]]:
    """Split positions into node range, first tap per position, and three quadratic B-spline weights."""
    nearest = np.floor(positions + 0.5)
    f = positions - nearest
    first = nearest.astype(np.int64) - 1
    nodes = np.arange(first.min(), first.max() + 3, dtype=np.int64)
    weights = [0.5 * (0.5 - f) ** 2, 0.75 - f * f, 0.5 * (0.5 + f) ** 2]
    return nodes, first - nodes[0], [w.astype(np.float32) for w in weights]


def smooth_noise(
    key: HashArray, positions_nm: tuple[RealArray, RealArray, RealArray], wavelength_nm: float
) -> FloatArray:
    """Give once differentiable noise on the lattice of three position axes.

    Args:
        key: from `stream_key`.
        positions_nm: coordinates of the voxels along z, y and x, in nm.
        wavelength_nm: spacing of the random nodes, in nm.

    Returns:
        Shape (z, y, x), float32, mean 0, deviation about 1, within about +-2.5 in practice and +-4 always.
    """
    taps = [_spline_taps(axis / wavelength_nm) for axis in positions_nm]
    bits = hash_lattice(key, (taps[0][0], taps[1][0], taps[2][0]))
    nodes = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    field: FloatArray = nodes * np.float32(_NOISE_SCALE)
    for axis in (2, 1, 0):
        _, first, weights = taps[axis]
        shape = [1, 1, 1]
        shape[axis] = -1
        total = np.take(field, first, axis=axis)
        total *= weights[0].reshape(shape)
        for k in (1, 2):
            part = np.take(field, first + k, axis=axis)
            part *= weights[k].reshape(shape)
            total += part
        field = total
    return field
