"""`sam4em skeleton` on a small run: what is traced, where it lies, resumed, refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from cloudvolume import CloudVolume

from pipeline.errors import CorruptData, ManifestMismatch, StoreUnavailable
from pipeline.run import shape_recipes
from pipeline.stages import skeleton_join

SIZE_NM = np.array((16.0, 8.0, 8.0))
SHAPE = (40, 80, 96)
RADIUS_NM = 60.0
# Ends of the axes, nm: a Y whose arms meet near the corner of 8 blocks, and a straight tube across two of them.
FORK = np.array((330.0, 262.0, 390.0))
TIPS = np.array(((120.0, 120.0, 200.0), (520.0, 160.0, 620.0), (330.0, 540.0, 390.0)))
TUBE = np.array(((560.0, 560.0, 80.0), (560.0, 560.0, 680.0)))


def draw_tube(start_nm, stop_nm):
    """Voxels whose centers lie within a radius of a straight axis."""
    centers = (np.stack(np.indices(SHAPE), axis=-1) + 0.5) * SIZE_NM
    axis = stop_nm - start_nm
    along = np.clip((centers - start_nm) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(centers - start_nm - along[..., None] * axis, axis=-1) < RADIUS_NM


@pytest.fixture(scope="module")
def image():
    """A Y over 8 blocks, a straight tube, and one voxel."""
    is_object = draw_tube(*TUBE) | np.any([draw_tube(FORK, tip) for tip in TIPS], axis=0)
    is_object[2, 75, 90] = True
    return np.where(is_object, 200, 0).astype(np.uint8)


@pytest.fixture
def run(command, write_volume, in_this_process, image):
    """A finished run; gives what writes its config and calls a command on it."""
    write_volume("em.zarr", image, size_nm=tuple(SIZE_NM))

    def call(*arguments, outputs=("seg",), **sections):
        values = {
            "image": {"url": "em.zarr"},
            "outputs": [{"url": url, "chunk_zyx": [20, 32, 48]} for url in outputs],
            "segmenter": {"kind": "threshold", "foreground": "bright"},
            "plan": {"block_zyx": [20, 32, 48]},
            "skeleton": {"block_zyx": [20, 32, 48]},
            **sections,
        }
        Path("run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return command(*arguments)

    return call


@pytest.fixture
def ended(run):
    """The same, after the segmentation alone; run.yaml wants skeletons."""
    assert run("run", "run.yaml", skeleton=None).code == 0
    assert run("status", "run.yaml").code == 0
    return run


def open_volume(path):
    return CloudVolume(f"file://{path}", progress=False, fill_missing=True)


def id_at(ids_xyz, place_nm):
    z, y, x = (place_nm / SIZE_NM).astype(int)
    return int(ids_xyz[x, y, z])


def count_ends(skeleton):
    return int((np.bincount(skeleton.edges.reshape(-1)) == 1).sum())


@pytest.mark.parametrize("skeleton_format", ["sharded", "files"])
def test_a_tree_has_its_ends_and_its_length_and_lies_in_its_object(run, tmp_path, skeleton_format):
    done = run("run", "run.yaml", "--json", skeleton={"block_zyx": [20, 32, 48], "format": skeleton_format})
    figures = json.loads(done.out)["skeletons"]
    assert (figures["objects"], figures["without_skeleton"]) == (2, 1)
    volume = open_volume(tmp_path / "seg")
    ids = volume[:][..., 0]
    lengths = {"fork": np.linalg.norm(TIPS - FORK, axis=1).sum() + 3 * RADIUS_NM}
    lengths["tube"] = np.linalg.norm(TUBE[1] - TUBE[0]) + 2 * RADIUS_NM
    total = 0.0
    for name, place, num_ends in (("fork", FORK, 3), ("tube", TUBE.mean(axis=0), 2)):
        segment = id_at(ids, place)
        skeleton = volume.skeleton.get(segment)
        assert len(skeleton.components()) == 1
        assert len(skeleton.edges) == len(skeleton.vertices) - 1
        assert count_ends(skeleton) == num_ends
        assert skeleton.cable_length() == pytest.approx(lengths[name], rel=0.12)
        voxels = np.floor(skeleton.vertices / SIZE_NM[::-1]).astype(int)
        assert set(ids[tuple(voxels.T)].tolist()) == {segment}
        assert RADIUS_NM * 0.8 < skeleton.radius.max() < RADIUS_NM * 1.6
        total += skeleton.cable_length()
    assert figures["length_nm"] == pytest.approx(total, abs=2)
    assert not (tmp_path / "seg.run" / "skeleton" / "fragments").exists()


def test_blocks_do_not_change_a_straight_tube(ended, command, tmp_path):
    found = []
    for block in ([20, 32, 48], [64, 96, 128]):
        ended("status", "run.yaml", skeleton={"block_zyx": block})
        assert command("skeleton", "run.yaml", "--restart").code == 0
        volume = open_volume(tmp_path / "seg")
        skeleton = volume.skeleton.get(id_at(volume[:][..., 0], TUBE.mean(axis=0)))
        assert count_ends(skeleton) == 2
        # The axis is straight along x; at its ends a path may go to the rim.
        is_inner = np.abs(skeleton.vertices[:, 0] - TUBE[:, 2].mean()) < 260
        assert np.abs(skeleton.vertices[is_inner, 1:] - TUBE[0, [1, 0]]).max() < 20
        found.append(skeleton.cable_length())
    assert found[0] == pytest.approx(found[1], rel=0.03)


def test_a_region_is_placed_as_the_segmentation_is(run, tmp_path):
    assert run("run", "run.yaml", image={"url": "em.zarr", "roi": "3:40,7:80,5:96"}).code == 0
    volume = open_volume(tmp_path / "seg")
    ids = volume[:][..., 0]
    assert tuple(volume.voxel_offset) == (5, 7, 3)
    z, y, x = (FORK / SIZE_NM).astype(int)
    segment = int(ids[x - 5, y - 7, z - 3])
    voxels = np.floor(volume.skeleton.get(segment).vertices / SIZE_NM[::-1]).astype(int) - (5, 7, 3)
    assert set(ids[tuple(voxels.T)].tolist()) == {segment}


def test_skeletons_of_a_zarr_lie_beside_it_and_the_viewer_finds_them(ended, command, tmp_path):
    assert ended("run", "run.yaml", "--restart", outputs=("seg.zarr",)).code == 0
    assert json.loads((tmp_path / "seg.zarr.skeletons" / "info").read_text())["@type"] == "neuroglancer_skeletons"
    from pipeline.run.show import scene_of_output

    layer = scene_of_output("seg.zarr").layers[1]
    assert layer.shape_locations == {"skeletons": "seg.zarr.skeletons"}
    assert layer.selected


def test_small_objects_and_others_than_the_chosen_get_none(ended, command, tmp_path):
    ids = open_volume(tmp_path / "seg")[:][..., 0]
    tube, fork = id_at(ids, TUBE.mean(axis=0)), id_at(ids, FORK)
    size_nm3 = float(np.count_nonzero(ids == tube) * SIZE_NM.prod())
    sized = json.loads(command("skeleton", "run.yaml", "--min-size-nm3", size_nm3 + 1, "--json").out)
    assert (sized["objects"], sized["without_skeleton"]) == (1, 0)
    chosen = json.loads(command("skeleton", "run.yaml", "--ids", tube, "--restart", "--json").out)
    assert (chosen["objects"], chosen["without_skeleton"]) == (1, 0)
    with pytest.raises(Exception, match="missing"):
        open_volume(tmp_path / "seg").skeleton.get(fork)


def test_the_level_of_a_pyramid_can_be_traced(ended, command, tmp_path):
    assert command("skeleton", "seg", "--mip", "1").code == 0
    volume = open_volume(tmp_path / "seg")
    ids = volume[:][..., 0]
    segment = id_at(ids, FORK)
    skeleton = volume.skeleton.get(segment)
    assert count_ends(skeleton) == 3
    voxels = np.floor(skeleton.vertices / SIZE_NM[::-1]).astype(int)
    assert (ids[tuple(voxels.T)] == segment).mean() > 0.9


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _refuse(*arguments):
    raise StoreUnavailable("the store does not answer")


def test_stopped_and_gone_on_with_gives_the_same_bytes(ended, command, monkeypatch, tmp_path):
    assert command("skeleton", "run.yaml").code == 0
    whole = _files(tmp_path / "seg" / "skeletons")
    assert len(whole) == 2
    calls = iter(range(1000))
    original = skeleton_join._write
    with monkeypatch.context() as broken:
        broken.setattr(skeleton_join, "_write", _refuse)
        assert command("skeleton", "run.yaml", "--restart").code == 3
    assert "skeletons" not in json.loads((tmp_path / "seg" / "info").read_text())
    (tmp_path / "seg.run" / "skeleton" / "fragment-ids" / "00" / "000" / "002").unlink()
    lost = command("skeleton", "run.yaml")
    assert "is gone" in lost.err
    with monkeypatch.context() as counted:
        counted.setattr(skeleton_join, "_write", lambda *given: (next(calls), original(*given))[1])
        assert json.loads(command("skeleton", "run.yaml", "--json").out)["objects"] == 2
    assert next(calls) == 1
    assert _files(tmp_path / "seg" / "skeletons") == whole
    assert json.loads(command("skeleton", "run.yaml", "--json").out)["status"] == "already complete"


def test_without_kimimaro_the_error_says_what_to_install_and_its_license(ended, run, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kimimaro", None)
    refused = command("skeleton", "seg")
    assert refused.code == 2
    assert 'pip install "sam4em[skeleton]"' in refused.err
    assert "GPL-3.0" in refused.err
    assert not (tmp_path / "seg.run" / "skeleton").exists()
    # A config that wants skeletons is refused before hours of segmentation.
    assert run("run", "run.yaml", outputs=("other",)).code == 2
    assert not (tmp_path / "other.run").exists()


def test_what_is_wrong_is_said(ended, command, tmp_path):
    assert command("skeleton", "nothing").code == 3
    assert "making skeletons: there is no object 99" in command("skeleton", "seg", "--ids", "99").err
    assert "no class 'cell'; it has object" in command("skeleton", "seg", "--classes", "cell").err
    assert "sharded" in command("skeleton", "seg", "--format", "swc").err
    assert "mip 9 does not exist" in command("skeleton", "seg", "--mip", "9").err
    state = tmp_path / "seg.run" / "state.json"
    state.write_text(state.read_text().replace('"complete": true', '"complete": false'))
    unfinished = command("skeleton", "seg")
    assert unfinished.code == 2
    assert "making skeletons of" in unfinished.err
    assert "is not complete" in unfinished.err


def test_other_settings_need_a_restart(ended, command):
    assert command("skeleton", "seg").code == 0
    other = command("skeleton", "seg", "--tick-nm", "100")
    assert other.code == 2
    assert "config.skeleton.tick_nm was 0.0" in other.err
    assert command("skeleton", "seg", "--tick-nm", "100", "--restart").code == 0


def test_meshes_and_skeletons_stand_side_by_side(ended, command, tmp_path):
    assert command("mesh", "seg").code == 0
    meshes = _files(tmp_path / "seg" / "mesh")
    assert command("skeleton", "seg").code == 0
    info = json.loads((tmp_path / "seg" / "info").read_text())
    assert (info["mesh"], info["skeletons"]) == ("mesh", "skeletons")
    stages = json.loads(command("status", "seg", "--json").out)["stages"]
    assert list(stages)[-4:] == ["mesh", "mesh-join", "skeleton", "skeleton-join"]
    assert all(stage["done"] == stage["total"] for stage in stages.values())
    found = json.loads(command("verify", "seg", "--json").out)
    assert (found["mesh_files"], found["skeleton_files"]) == ({"mesh-0": 1}, {"skeleton-0": 1})
    assert command("skeleton", "seg", "--restart").code == 0
    assert _files(tmp_path / "seg" / "mesh") == meshes
    assert ended("run", "run.yaml", "--restart", skeleton=None).code == 0
    assert not (tmp_path / "seg" / "skeletons").exists()
    assert not (tmp_path / "seg.run" / "skeleton").exists()
    assert "skeletons" not in json.loads((tmp_path / "seg" / "info").read_text())


@pytest.mark.parametrize(("skeleton_format", "name"), [("sharded", "*.shard"), ("files", "[12]")])
def test_verify_finds_a_damaged_one_and_it_is_made_anew(run, command, tmp_path, skeleton_format, name):
    section = {"block_zyx": [20, 32, 48], "format": skeleton_format}
    assert run("run", "run.yaml", skeleton=section).code == 0
    victim = next((tmp_path / "seg" / "skeletons").glob(name))
    before = victim.read_bytes()
    victim.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    damaged = command("verify", "seg")
    assert damaged.code == CorruptData.exit_code
    assert "the file of skeletons in" in damaged.err
    assert "skeletons" not in json.loads((tmp_path / "seg" / "info").read_text())
    assert command("skeleton", "run.yaml").code == 0
    assert victim.read_bytes() == before
    assert command("verify", "seg").code == 0


def test_skeletons_of_another_version_are_told_from_the_segmentation(run, command, monkeypatch):
    assert run("run", "run.yaml").code == 0
    older = replace(shape_recipes.RECIPES["skeleton"], version=0)
    monkeypatch.setattr(shape_recipes, "RECIPES", {"mesh": shape_recipes.RECIPES["mesh"], "skeleton": older})
    refused = command("verify", "seg")
    assert refused.code == ManifestMismatch.exit_code
    assert "`sam4em skeleton --restart` makes them anew" in refused.err


def test_a_volume_without_objects_has_no_skeletons_and_says_so(run, command):
    done = run("run", "run.yaml", "--json", classes={"object": {"min_size_nm3": 1e12}})
    assert done.code == 0
    assert json.loads(done.out)["skeletons"]["objects"] == 0
