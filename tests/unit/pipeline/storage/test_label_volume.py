"""The contract of both writers, sharded and not."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import (
    ConfigError,
    CorruptData,
    ManifestMismatch,
    OurError,
    PlanError,
    StoreFull,
    StoreReadOnly,
)
from pipeline.geometry import Box
from pipeline.storage import LabelVolumeSpec, UnitRecord, checksum, label_writer, open_volume

SHAPE = (11, 23, 37)
CHUNK = (4, 8, 16)
SHARD = (8, 16, 32)
WHOLE = Box.of_shape(SHAPE)
KINDS = [(f, s) for f in ("ome-zarr", "precomputed") for s in (None, SHARD)]


def ids(shape=SHAPE, seed=1):
    return np.random.default_rng(seed).integers(2**53, 2**64, shape, dtype=np.uint64)


def spec_of(url, shard=None, **changes):
    values = {
        "shape_zyx": SHAPE,
        "voxel_size_zyx_nm": (30.0, 8.0, 6.0),
        "chunk_zyx": CHUNK,
        "shard_zyx": shard,
        "factors_zyx": ((1, 2, 2), (2, 2, 2)),
        "offset_zyx_voxels": (3, 4, 8),
        "class_name": "mitochondrion",
    }
    return LabelVolumeSpec(str(url), **(values | changes))


@pytest.fixture(params=KINDS, ids=lambda k: f"{k[0]}-{'sharded' if k[1] else 'chunks'}")
def make(request):
    label_format, shard = request.param
    return lambda url, **changes: label_writer(label_format, spec_of(url, shard, **changes))


@pytest.fixture
def writer(make, tmp_path):
    made = make(tmp_path / "seg")
    made.create()
    return made


def files_of(folder, writer):
    root = Path(folder)
    return [p for p in root.rglob("*") if p.is_file() and p.name not in ("info", "zarr.json")]


def test_every_mip_comes_back_and_verifies(writer):
    for mip in range(3):
        shape = writer.spec.shape(mip)
        labels = ids(shape, mip)
        records = writer.write(mip, Box.of_shape(shape), labels)
        np.testing.assert_array_equal(writer.read(mip, Box.of_shape(shape)), labels)
        assert len(records) == writer.num_files(mip)
        for record in records:
            writer.verify_unit(mip, record)


def test_units_written_one_by_one_in_any_order_give_the_whole(writer, tmp_path):
    labels = ids()
    grid = writer.unit_grid(0)
    for index in reversed(range(len(grid))):
        box = grid.box(index)
        (record,) = writer.write(0, box, labels[box.slices])
        assert record.position == grid.position(index)
        assert record.crc32c == checksum(labels[box.slices])
    np.testing.assert_array_equal(writer.read(0, WHOLE), labels)
    assert len(files_of(tmp_path, writer)) == writer.num_files(0)


def test_the_reader_sees_size_place_and_levels(writer):
    labels = ids()
    writer.write(0, WHOLE, labels)
    volume = open_volume(writer.spec.url, kind="labels")
    np.testing.assert_array_equal(volume.read(WHOLE), labels)
    info = volume.info
    assert info.dtype == np.uint64
    assert [level.shape_zyx for level in info.levels] == [(11, 23, 37), (11, 12, 19), (6, 6, 10)]
    assert [level.voxel_size_zyx_nm for level in info.levels] == [(30, 8, 6), (30, 16, 12), (60, 32, 24)]
    if info.format == "precomputed":
        assert info.voxel_offset_zyx == (3, 4, 8)
    else:
        np.testing.assert_allclose(info.origin_zyx_nm, (3 * 30 - 15, 4 * 8 - 4, 8 * 6 - 3))


def test_sizes_property(make, tmp_path_factory):
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(st.integers(9, 19), st.integers(17, 29), st.integers(33, 47)), st.integers(0, 99))
    def check(shape, seed):
        made = make(tmp_path_factory.mktemp("p") / "seg", shape_zyx=shape)
        made.create()
        labels = ids(shape, seed) * (ids(shape, seed + 1) % np.uint64(2))
        made.write(0, Box.of_shape(shape), labels)
        np.testing.assert_array_equal(made.read(0, Box.of_shape(shape)), labels)

    check()


def test_background_units_have_no_file_and_a_rerun_removes_the_old_one(writer, tmp_path):
    labels = ids()
    unit = Box.of_shape(writer.write_unit_zyx(0))
    before = writer.write(0, WHOLE, labels)
    assert all(record.crc32c is not None for record in before)
    num_files = len(files_of(tmp_path, writer))
    labels[unit.slices] = 0
    after = writer.write(0, WHOLE, labels)
    assert after[0] == UnitRecord((0, 0, 0), None)
    assert len(files_of(tmp_path, writer)) == num_files - 1
    assert not writer.read(0, unit).any()
    writer.verify_unit(0, after[0])
    with pytest.raises(CorruptData, match="missing or all background"):
        writer.verify_unit(0, before[0])


def test_lost_changed_and_torn_units_are_found(writer, tmp_path):
    records = writer.write(0, WHOLE, ids())
    victim = max(files_of(tmp_path, writer), key=lambda path: path.stat().st_size)
    data = victim.read_bytes()

    def num_bad():
        bad = 0
        for record in records:
            try:
                writer.verify_unit(0, record)
            except CorruptData:
                bad += 1
        return bad

    assert num_bad() == 0
    for torn in (data[: len(data) // 2], data[:-5], b""):
        victim.write_bytes(torn)
        assert num_bad() == 1
    victim.unlink()
    assert num_bad() == 1
    with pytest.raises(CorruptData, match="background"):
        writer.verify_unit(0, UnitRecord(records[-1].position, None))


def test_part_of_a_unit_and_wrong_labels_are_bugs(writer):
    labels = ids()
    with pytest.raises(OurError, match="whole write units"):
        writer.write(0, Box((0, 0, 0), (3, 23, 37)), labels[:3])
    with pytest.raises(OurError, match="whole write units"):
        writer.write(0, Box((1, 0, 0), (11, 23, 37)), labels[1:])
    with pytest.raises(OurError, match="uint64"):
        writer.write(0, WHOLE, labels.astype(np.uint32))
    with pytest.raises(OurError, match="uint64"):
        writer.write(0, WHOLE, labels[1:])
    with pytest.raises(OurError, match="outside"):
        writer.read(0, Box((0, 0, 0), (12, 1, 1)))
    with pytest.raises(OurError, match="mip 3"):
        writer.write_unit_zyx(3)


def test_create_twice_is_once_and_another_spec_is_refused(make, writer, tmp_path):
    labels = ids()
    writer.write(0, WHOLE, labels)
    make(tmp_path / "seg").create()
    np.testing.assert_array_equal(writer.read(0, WHOLE), labels)
    other = make(tmp_path / "seg", class_name="glia")
    with pytest.raises(ManifestMismatch, match="another volume"):
        other.create()
    with pytest.raises(ManifestMismatch):
        other.delete()
    np.testing.assert_array_equal(writer.read(0, WHOLE), labels)


def test_mark_says_complete_only_when_told(writer):
    assert not writer.is_complete()
    writer.mark(complete=True)
    assert writer.is_complete()
    writer.create()
    assert writer.is_complete()
    writer.mark(complete=False)
    assert not writer.is_complete()


def test_delete_leaves_the_neighbors_alone(writer, tmp_path):
    writer.write(0, WHOLE, ids())
    (tmp_path / "seg" / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    writer.delete()
    assert sorted(p.name for p in (tmp_path / "seg").iterdir()) == ["notes.txt"]
    assert (tmp_path / "other").is_dir()
    writer.delete()
    writer.create()
    assert not writer.read(0, WHOLE).any()


def test_delete_removes_an_empty_folder(writer, tmp_path):
    writer.delete()
    assert not (tmp_path / "seg").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_left(writer, monkeypatch, number):
    real = Path.open

    def full(self, mode="r", *args, **kwargs):
        if "w" in mode or "x" in mode or "+" in mode:
            raise OSError(number, os.strerror(number))
        return real(self, mode, *args, **kwargs)

    def full_open(path, mode="r", *args, **kwargs):
        return full(Path(path), mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr("builtins.open", full_open)
    with pytest.raises(StoreFull, match="no space is left"):
        writer.write(0, WHOLE, ids())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_read_only_output(make, tmp_path, monkeypatch, number):
    def denied(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", denied)
    monkeypatch.setattr(os, "mkdir", denied)
    with pytest.raises(StoreReadOnly, match="not permitted"):
        make(tmp_path / "deep" / "seg").create()


def test_http_outputs_are_refused(make):
    with pytest.raises(ConfigError, match="only be read"):
        make("https://example.org/seg")


@pytest.mark.parametrize(
    "changes",
    [{"shape_zyx": (0, 1, 1)}, {"voxel_size_zyx_nm": (1.0, -1.0, 1.0)}, {"factors_zyx": ((0, 2, 2),)}],
)
def test_impossible_specs_are_plan_errors(make, tmp_path, changes):
    with pytest.raises(PlanError):
        make(tmp_path / "seg", **changes)


def test_impossible_shards_are_plan_errors(make, tmp_path):
    with pytest.raises(PlanError, match="shard"):
        make(tmp_path / "seg", shard_zyx=(7, 16, 32))


def test_spec_digest_ignores_the_address_alone(tmp_path):
    assert spec_of("/a").digest() == spec_of("/b").digest()
    assert spec_of("/a").digest() != spec_of("/a", shape_zyx=(11, 23, 38)).digest()


def test_checksum_is_that_of_little_endian_c_order_bytes():
    assert checksum(np.ones((1, 1, 1), np.uint64)) == checksum(np.ones((1, 1, 1), ">u8"))
    assert checksum(np.zeros((2, 2, 2), np.uint64)) is None
    labels = ids()
    assert checksum(labels) == checksum(np.asfortranarray(labels))
    assert checksum(labels) != checksum(labels.transpose(0, 2, 1))
