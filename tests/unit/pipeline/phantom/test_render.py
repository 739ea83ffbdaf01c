import hashlib
import tracemalloc

import cc3d
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.phantom import LAYERS, PhantomBlock, PhantomSpec, render

FAULTY = PhantomSpec(
    seed=3,
    voxel_size_zyx_nm=(8.0, 7.0, 9.0),
    missing_section_fraction=0.1,
    damaged_section_fraction=0.3,
)
WHOLE = Box((-5, 5, 61), (29, 72, 134))


def layer(block: PhantomBlock, name: str) -> np.ndarray:
    values = getattr(block, f"{name}_zyx")
    assert values is not None
    return values


@pytest.fixture(scope="module")
def whole() -> PhantomBlock:
    return render(FAULTY, WHOLE)


@pytest.fixture(scope="module")
def tissue() -> PhantomBlock:
    spec = PhantomSpec(seed=11, voxel_size_zyx_nm=(16.0, 16.0, 16.0))
    return render(spec, Box.of_shape((61, 149, 151)))


@pytest.mark.parametrize(
    "part",
    [
        Box((-5, 5, 61), (11, 40, 101)),
        Box((0, 31, 97), (29, 72, 134)),
        Box((7, 13, 64), (8, 64, 127)),
        Box((28, 71, 133), (29, 72, 134)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", LAYERS)
def test_a_piece_equals_its_part_of_the_whole(whole, part, name):
    expected = layer(whole, name)[part.relative_to(WHOLE.start).slices]
    assert np.array_equal(layer(render(FAULTY, part), name), expected)


def test_bytes_do_not_depend_on_the_shape_of_the_volume(whole):
    other = PhantomSpec(**{**FAULTY.__dict__, "shape_zyx": (7, 11, 13)})
    box = Box((3, 17, 80), (11, 40, 101))
    part = layer(whole, "image")[box.relative_to(WHOLE.start).slices]
    assert np.array_equal(layer(render(other, box), "image"), part)


def test_another_seed_is_another_tissue(whole):
    other = PhantomSpec(**{**FAULTY.__dict__, "seed": 4})
    block = render(other, WHOLE)
    assert not np.array_equal(layer(block, "image"), layer(whole, "image"))
    assert not np.array_equal(layer(block, "neurites"), layer(whole, "neurites"))


def test_dtypes_and_shapes(whole):
    for name in LAYERS:
        assert layer(whole, name).shape == WHOLE.shape
        assert layer(whole, name).dtype == (np.uint8 if name == "image" else np.uint64)


def test_only_the_wanted_layers_are_made(whole):
    block = render(FAULTY, WHOLE, want=("mitochondria",))
    assert block.image_zyx is None and block.neurites_zyx is None
    assert np.array_equal(layer(block, "mitochondria"), layer(whole, "mitochondria"))


@pytest.mark.parametrize("name", ["mitochondria", "synapses"])
def test_every_id_is_one_connected_object(tissue, name):
    labels = layer(tissue, name)
    ids = np.unique(labels[labels > 0])
    assert len(ids) >= 5
    for value in ids:
        # An object cut by the box's border may enter it twice; it is whole where it does not touch it.
        mask = labels == value
        inside = ~np.any([m.any() for m in (mask[0], mask[-1], mask[:, 0], mask[:, -1])])
        inside &= not (mask[:, :, 0].any() or mask[:, :, -1].any())
        if inside:
            assert cc3d.connected_components(mask, connectivity=26, return_N=True)[1] == 1, value


def test_mitochondria_lie_inside_their_neurite(tissue):
    mitochondria, neurites = layer(tissue, "mitochondria"), layer(tissue, "neurites")
    inside = mitochondria > 0
    assert np.array_equal(mitochondria[inside], neurites[inside])


def test_glia_and_neurites_share_the_space(tissue):
    glia, neurites = layer(tissue, "glia") > 0, layer(tissue, "neurites") > 0
    assert not (glia & neurites).any()
    assert 0.02 < glia.mean() < 0.6
    assert (glia | neurites).mean() > 0.999


def test_an_id_does_not_come_back_far_away(tissue):
    neurites = layer(tissue, "neurites")
    for value in np.unique(neurites[neurites > 0]):
        extent_nm = [16.0 * np.ptp(axis) for axis in np.nonzero(neurites == value)]
        assert max(extent_nm) < 6000.0


def test_grey_values_are_like_em(tissue):
    image, inside = layer(tissue, "image"), layer(tissue, "mitochondria") > 0
    assert 0.01 < inside.mean() < 0.15
    assert image[inside].mean() + 25 < image[~inside].mean()
    assert 20 < image.std() < 45
    assert ((image == 0) | (image == 255)).mean() < 0.001


def test_missing_sections_are_blank_and_keep_their_truth():
    box = Box.of_shape((29, 17, 19))
    clean = PhantomSpec(seed=1)
    faulty = PhantomSpec(seed=1, missing_section_fraction=0.2, damaged_section_fraction=0.3)
    before, after = render(clean, box), render(faulty, box)
    blank = (layer(after, "image") == 0).all(axis=(1, 2))
    assert 0 < blank.sum() < 29
    changed = (layer(before, "image") != layer(after, "image")).any(axis=(1, 2))
    assert blank.sum() < changed.sum() < 29
    for name in LAYERS[1:]:
        assert np.array_equal(layer(before, name), layer(after, name))


def test_anisotropic_sections_far_from_the_origin():
    spec = PhantomSpec(seed=2, voxel_size_zyx_nm=(50.0, 4.0, 4.0))
    start = (2_000_003, 40_000_037, 50_000_017)
    block = render(spec, Box.of_shape((2, 67, 71), start))
    assert 20 < layer(block, "image").std() < 60
    assert hashlib.sha256(layer(block, "image")).digest() == (
        hashlib.sha256(layer(render(spec, block.box), "image")).digest()
    )


def best_shift(fixed, moved, likeness, reach=8):
    """Find the shift (y, x) after which two sections are most alike."""
    inner = (slice(reach, -reach),) * 2
    shifts = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    alike = [likeness(np.roll(fixed, shift, (0, 1))[inner].ravel(), moved[inner].ravel()) for shift in shifts]
    return shifts[int(np.argmax(alike))]


def test_sections_jitter_sideways_image_and_truth_together():
    box = Box.of_shape((7, 101, 103))
    still, shaken = (
        render(
            PhantomSpec(seed=11, voxel_size_zyx_nm=(12.0, 12.0, 12.0), section_jitter_nm=jitter, noise_sigma=0),
            box,
            want=("image", "neurites"),
        )
        for jitter in (0.0, 30.0)
    )
    likeness = {
        "neurites": lambda one, two: (one == two).mean(),
        "image": lambda one, two: np.corrcoef(one, two)[0, 1],
    }
    found = {
        name: np.array([best_shift(layer(still, name)[z], layer(shaken, name)[z], alike) for z in range(7)])
        for name, alike in likeness.items()
    }
    assert np.abs(found["image"] - found["neurites"]).max() <= 1
    # 30 nm are two and a half voxels (one standard deviation); every section moves by itself.
    assert len(np.unique(found["image"], axis=0)) >= 5
    assert 1 < found["image"].std() < 5


def test_memory_does_not_grow_with_the_volume():
    """One block in the midst of 10^17 voxels needs no more than one in a small volume."""
    peaks = {}
    for shape, start in (((64, 512, 512), (16, 64, 64)), ((100_000, 10**6, 10**6), (50_000, 500_032, 500_032))):
        spec = PhantomSpec(seed=1, shape_zyx=shape, voxel_size_zyx_nm=(16.0, 16.0, 16.0))
        tracemalloc.start()
        render(spec, Box.of_shape((16, 32, 32), start))
        peaks[shape] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    small, huge = peaks.values()
    assert huge < 1.5 * small
    assert huge < 200 * 2**20


def test_an_empty_box_is_empty():
    assert layer(render(FAULTY, Box((5, 5, 5), (5, 9, 9))), "image").shape == (0, 4, 4)


def test_refuses_unknown_layers():
    with pytest.raises(ConfigError, match="nuclei"):
        render(FAULTY, WHOLE, want=("nuclei",))
