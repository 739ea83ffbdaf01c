"""`sam4em mesh` on a small run: what is written, resumed, refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from cloudvolume import CloudVolume

from pipeline.errors import CorruptData, ManifestMismatch, StoreUnavailable
from pipeline.labels.surfaces import count_edge_uses
from pipeline.run import shape_recipes
from pipeline.stages import mesh_join

SIZE_NM = (16.0, 8.0, 8.0)


def make_image():
    """Two balls that cross every block face, and a brick at the border of the volume."""
    image = np.zeros((40, 70, 90), np.uint8)
    axes = np.indices(image.shape)
    for center in ((20, 32, 32), (20, 40, 64)):
        distance = sum(((axis - at) * nm / 8) ** 2 for axis, at, nm in zip(axes, center, SIZE_NM, strict=True))
        image[distance < 14**2] = 200
    image[:6, :9, :10] = 200
    return image


@pytest.fixture
def run(command, write_volume, in_this_process):
    """A finished run with a precomputed and a zarr output; gives what writes its config and calls a command on it."""
    write_volume("em.zarr", make_image(), size_nm=SIZE_NM)

    def call(*arguments, outputs=("seg",), **sections):
        values = {
            "image": {"url": "em.zarr"},
            "outputs": [{"url": url, "chunk_zyx": [16, 32, 32]} for url in outputs],
            "segmenter": {"kind": "threshold", "foreground": "bright"},
            "plan": {"block_zyx": [16, 32, 32]},
            **sections,
        }
        Path("run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return command(*arguments)

    return call


def read_mesh(url, segment, lod=0):
    return CloudVolume(f"file://{url}", progress=False).mesh.get(segment, lod=lod)[segment]


def test_every_object_has_a_mesh_where_its_voxels_are(run, command, tmp_path):
    assert run("run", "run.yaml", mesh={"block_zyx": [16, 32, 32]}).code == 0
    ids = CloudVolume(f"file://{tmp_path}/seg", progress=False, fill_missing=True)[:][..., 0]
    assert set(np.unique(ids)) == {0, 1, 2, 3}
    for segment in (1, 2, 3):
        mesh = read_mesh(tmp_path / "seg", segment)
        places = np.argwhere(ids == segment)
        size = np.array(SIZE_NM[::-1])
        assert np.abs(mesh.vertices.min(axis=0) - places.min(axis=0) * size).max() < size.max() / 2
        assert np.abs(mesh.vertices.max(axis=0) - (places.max(axis=0) + 1) * size).max() < size.max() / 2
    assert not (tmp_path / "seg.run" / "mesh" / "fragments").exists()


def test_a_region_and_legacy_meshes_that_are_closed(run, command, tmp_path):
    image = {"url": "em.zarr", "roi": "3:40,7:70,5:90"}
    assert run("run", "run.yaml", image=image).code == 0
    done = command("mesh", "seg", "--format", "legacy", "--json")
    assert json.loads(done.out)["objects"] == 3
    volume = CloudVolume(f"file://{tmp_path}/seg", progress=False, fill_missing=True)
    ids = volume[:][..., 0]
    for segment in (1, 2, 3):
        found = volume.mesh.get(segment)
        mesh = found[segment] if isinstance(found, dict) else found
        places = np.argwhere(ids == segment) + np.array([5, 7, 3])
        assert np.abs(mesh.vertices.min(axis=0) - places.min(axis=0) * SIZE_NM[::-1]).max() < 8
        _, uses = count_edge_uses(mesh.faces.astype(np.uint32))
        assert set(uses.tolist()) == {2}


def test_meshes_of_a_zarr_lie_beside_it(run, command, tmp_path):
    assert run("run", "run.yaml", outputs=("seg.zarr",)).code == 0
    done = command("mesh", "seg.zarr")
    assert done.code == 0
    assert (tmp_path / "seg.zarr.mesh" / "info").is_file()
    assert list((tmp_path / "seg.zarr.mesh").glob("*.shard"))


def test_small_objects_and_others_than_the_chosen_get_no_mesh(run, command):
    assert run("run", "run.yaml").code == 0
    brick_nm3 = 6 * 9 * 10 * 16 * 8 * 8
    sized = command("mesh", "seg", "--min-size-nm3", brick_nm3 + 1, "--json")
    assert json.loads(sized.out)["objects"] == 2
    chosen = command("mesh", "seg", "--ids", "2", "--restart", "--json")
    assert json.loads(chosen.out)["objects"] == 1


def test_a_failed_task_is_made_up_for_by_the_same_command(run, command, monkeypatch):
    assert run("run", "run.yaml").code == 0
    with monkeypatch.context() as broken:
        broken.setattr(mesh_join, "_write", _refuse)
        failed = command("mesh", "seg")
    assert failed.code == 3
    done = command("mesh", "seg", "--json")
    assert json.loads(done.out)["objects"] == 3
    again = command("mesh", "seg", "--json")
    assert json.loads(again.out)["status"] == "already complete"


def _refuse(*arguments):
    raise StoreUnavailable("the store does not answer")


def test_a_lost_fragment_is_made_again(run, command, monkeypatch, tmp_path):
    assert run("run", "run.yaml").code == 0
    with monkeypatch.context() as broken:
        broken.setattr(mesh_join, "_write", _refuse)
        command("mesh", "seg")
    (tmp_path / "seg.run" / "mesh" / "fragment-ids" / "00" / "000" / "000").unlink()
    lost = command("mesh", "seg")
    assert "is gone" in lost.err
    assert json.loads(command("mesh", "seg", "--json").out)["objects"] == 3


def test_the_level_of_a_pyramid_can_be_meshed(run, command, tmp_path):
    assert run("run", "run.yaml").code == 0
    assert command("mesh", "seg", "--mip", "1").code == 0
    ids = CloudVolume(f"file://{tmp_path}/seg", progress=False, fill_missing=True)[:][..., 0]
    places = np.argwhere(ids == 1) * np.array(SIZE_NM[::-1])
    mesh = read_mesh(tmp_path / "seg", 1)
    assert np.abs(mesh.vertices.min(axis=0) - places.min(axis=0)).max() <= 16
    absent = command("mesh", "seg", "--mip", "9", "--restart")
    assert absent.code == 2
    assert "mip 9 does not exist" in absent.err


def test_what_is_wrong_is_said(run, command, tmp_path):
    assert command("mesh", "nothing").code == 3
    assert run("run", "run.yaml").code == 0
    assert "there is no object 99; the ids are 1 to 3" in command("mesh", "seg", "--ids", "1,99").err
    assert "no class 'cell'; it has object" in command("mesh", "seg", "--classes", "cell").err
    assert "whole numbers above 0" in command("mesh", "seg", "--ids", "a").err
    assert "multiresolution" in command("mesh", "seg", "--format", "obj").err
    state = tmp_path / "seg.run" / "state.json"
    state.write_text(state.read_text().replace('"complete": true', '"complete": false'))
    unfinished = command("mesh", "seg")
    assert unfinished.code == 2
    assert "is not complete" in unfinished.err


def test_other_settings_need_a_restart(run, command):
    assert run("run", "run.yaml").code == 0
    assert command("mesh", "seg").code == 0
    other = command("mesh", "seg", "--levels", "1")
    assert other.code == 2
    assert "config.mesh.levels was 4" in other.err
    assert "--restart" in other.err
    assert command("mesh", "seg", "--levels", "1", "--restart").code == 0


def test_a_volume_without_objects_has_no_meshes_and_says_so(run, command, tmp_path):
    assert run("run", "run.yaml", classes={"object": {"min_size_nm3": 1e12}}).code == 0
    done = command("mesh", "seg", "--json")
    assert done.code == 0
    assert json.loads(done.out)["objects"] == 0


def test_a_run_that_begins_again_has_no_meshes(run, command, tmp_path):
    assert run("run", "run.yaml").code == 0
    assert command("mesh", "seg").code == 0
    assert run("run", "run.yaml", "--restart").code == 0
    assert not (tmp_path / "seg" / "mesh").exists()
    assert not (tmp_path / "seg.run" / "mesh").exists()
    assert "mesh" not in json.loads((tmp_path / "seg" / "info").read_text())


@pytest.mark.parametrize(
    ("mesh_format", "name"), [("legacy", "2:0:0"), ("legacy", "2:0"), ("multiresolution", "*.shard")]
)
def test_verify_reads_meshes_again_and_a_damaged_one_is_made_anew(run, command, tmp_path, mesh_format, name):
    assert run("run", "run.yaml", mesh={"format": mesh_format}).code == 0
    whole = command("verify", "seg", "--json")
    assert sum(json.loads(whole.out)["mesh_files"].values()) == (3 if mesh_format == "legacy" else 1)
    (victim,) = (tmp_path / "seg" / "mesh").glob(name)
    before = victim.read_bytes()
    victim.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    damaged = command("verify", "seg")
    assert damaged.code == CorruptData.exit_code
    assert "the file of meshes in" in damaged.err
    assert "mesh" not in json.loads((tmp_path / "seg" / "info").read_text())
    assert run("run", "run.yaml", mesh={"format": mesh_format}).code == 0
    assert victim.read_bytes() == before
    assert command("verify", "seg").code == 0


def test_a_lost_mesh_is_found(run, command, tmp_path):
    assert run("run", "run.yaml", mesh={"format": "legacy"}).code == 0
    (tmp_path / "seg" / "mesh" / "3:0:0").unlink()
    lost = command("verify", "seg")
    assert lost.code == CorruptData.exit_code
    assert "that begins with object 3 is gone" in lost.err


def test_meshes_of_another_version_are_told_from_the_segmentation(run, command, monkeypatch):
    assert run("run", "run.yaml", mesh={}).code == 0
    older = replace(shape_recipes.RECIPES["mesh"], version=1)
    monkeypatch.setattr(shape_recipes, "RECIPES", {"mesh": older, "skeleton": shape_recipes.RECIPES["skeleton"]})
    refused = command("verify", "seg")
    assert refused.code == ManifestMismatch.exit_code
    assert "`sam4em mesh --restart` makes them anew" in refused.err
    assert json.loads(command("status", "seg", "--json").out)["verified"] is True


def test_status_tells_of_meshes_once_they_are_begun(run, command):
    assert run("run", "run.yaml").code == 0
    before = json.loads(command("status", "seg", "--json").out)["stages"]
    assert command("mesh", "seg").code == 0
    after = json.loads(command("status", "seg", "--json").out)["stages"]
    assert list(after) == [*before, "mesh", "mesh-join"]
    assert all(stage["done"] == stage["total"] for stage in after.values())
