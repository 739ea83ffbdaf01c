"""Intermediate arrays."""

import numpy as np
import pytest

from pipeline.errors import CorruptData, ManifestMismatch, OurError
from pipeline.geometry import Box
from pipeline.storage import ScratchArray, ScratchSpec

SHAPE = (11, 23, 37)
CHUNK = (4, 8, 16)
WHOLE = Box.of_shape(SHAPE)


@pytest.fixture(
    params=[("uint8", 2, None), ("uint32", None, None), ("uint8", 2, (8, 16, 16)), ("uint32", None, (8, 16, 16))],
    ids=["probabilities", "labels", "sharded-probabilities", "sharded-labels"],
)
def spec(request, tmp_path):
    return ScratchSpec(str(tmp_path / "s"), SHAPE, CHUNK, *request.param)


@pytest.fixture
def voxels(spec):
    values = np.random.default_rng(2).integers(1, 255, spec.channels + SHAPE)
    return values.astype(spec.dtype)


@pytest.fixture
def scratch(spec):
    array = ScratchArray(spec)
    array.create()
    return array


def test_blocks_in_any_order_give_the_whole(scratch, spec, voxels):
    grid = scratch.grid
    for index in reversed(range(len(grid))):
        box = grid.box(index)
        (record,) = ScratchArray(spec).write(box, voxels[(..., *box.slices)])
        scratch.verify_unit(record)
    np.testing.assert_array_equal(scratch.read(WHOLE), voxels)
    box = Box((1, 2, 3), (10, 11, 30))
    np.testing.assert_array_equal(scratch.read(box), voxels[(..., *box.slices)])


def test_create_twice_is_once_and_another_array_is_refused(scratch, spec, voxels, tmp_path):
    scratch.write(WHOLE, voxels)
    ScratchArray(spec).create()
    np.testing.assert_array_equal(scratch.read(WHOLE), voxels)
    with pytest.raises(ManifestMismatch, match="another array"):
        ScratchArray(ScratchSpec(spec.url, SHAPE, (4, 8, 8), spec.dtype, spec.num_channels)).create()


def test_misfits_are_bugs(scratch, spec, voxels):
    with pytest.raises(OurError, match="whole units"):
        scratch.write(Box((0, 0, 0), (3, 23, 37)), voxels[..., :3, :, :])
    with pytest.raises(OurError, match="voxels are"):
        scratch.write(WHOLE, voxels.astype(np.uint16))
    with pytest.raises(OurError, match="outside"):
        scratch.read(Box((0, 0, 0), (12, 1, 1)))
    for bad in ({"dtype": "float32"}, {"chunk_zyx": (0, 1, 1)}, {"num_channels": 0, "shape_zyx": (0, 1, 1)}):
        with pytest.raises(OurError):
            ScratchSpec(**({"url": "u", "shape_zyx": SHAPE, "chunk_zyx": CHUNK} | bad))


def test_lost_and_torn_chunks_are_found(scratch, spec, voxels, tmp_path):
    records = scratch.write(WHOLE, voxels)
    victim = sorted(p for p in (tmp_path / "s" / "c").rglob("*") if p.is_file())[0]
    data = victim.read_bytes()
    for torn in (data[:-4], b""):
        victim.write_bytes(torn)
        with pytest.raises(CorruptData, match="0:11,0:23,0:37"):
            scratch.read(WHOLE)
    victim.unlink()
    with pytest.raises(CorruptData, match=r"unit \(0, 0, 0\) was written and is gone"):
        scratch.verify_unit(records[0])


def test_a_chunk_of_zeros_has_a_file_so_that_its_loss_is_seen(scratch, spec, voxels, tmp_path):
    voxels[..., :4, :, :] = 0
    scratch.write(WHOLE, voxels)
    np.testing.assert_array_equal(scratch.read(WHOLE), voxels)
    files = [path for path in (tmp_path / "s" / "c").rglob("*") if path.is_file()]
    assert len(files) == len(scratch.grid)
    files[0].unlink()
    with pytest.raises(CorruptData, match="was written and is gone"):
        scratch.read(WHOLE)


def test_units_left_out_on_purpose_read_as_zeros(scratch, spec, voxels):
    depth = spec.unit_zyx[0]
    scratch.write(Box((0, 0, 0), (depth, 23, 37)), voxels[..., :depth, :, :])
    asked = []

    def is_blank(unit):
        asked.append(unit.start[0])
        return True

    assert not scratch.read(Box((depth, 0, 0), (11, 23, 37)), is_blank).any()
    assert set(asked) == set(range(depth, 11, depth))
    with pytest.raises(CorruptData, match=r"unit \(1, 0, 0\)"):
        scratch.read(Box((depth - 1, 0, 0), (depth + 1, 8, 16)))


def test_delete_leaves_other_files(scratch, voxels, tmp_path):
    scratch.write(WHOLE, voxels)
    (tmp_path / "s" / "mine").write_text("x")
    scratch.delete()
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["mine"]
