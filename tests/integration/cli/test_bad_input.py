"""Bad input at the command line: a message that names the thing and the mend, the family's exit code, no traceback."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from safetensors import safe_open
from safetensors.numpy import save_file

from pipeline.ledger import Lease, lease
from pipeline.segmenter import model_path
from pipeline.storage import ImageSpec, ImageWriter, ObjectStore

SHAPE = (17, 40, 48)


@pytest.fixture
def sam4em(command):
    """Call the command; give exit code and stderr."""

    def call(*arguments):
        ended = command(*arguments)
        return ended.code, ended.err

    return call


@pytest.fixture
def image(tmp_path):
    spec = ImageSpec(str(tmp_path / "em.zarr"), SHAPE, "uint8", (8.0, 8.0, 8.0), chunk_zyx=(16, 32, 32))
    writer = ImageWriter(spec)
    writer.create()
    rng = np.random.default_rng(2)
    for index in range(len(writer.grid())):
        box = writer.grid().box(index)
        writer.write(box, rng.integers(0, 256, box.shape, np.uint8))
    return tmp_path / "em.zarr"


def config(tmp_path, address, **sections):
    values = {
        "image": {"url": str(address)},
        "outputs": [{"url": str(tmp_path / "out.zarr"), "chunk_zyx": [16, 16, 16]}],
        "segmenter": {"kind": "threshold"},
        **sections,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def nothing_written(tmp_path):
    return not (tmp_path / "out.zarr").exists() and not (tmp_path / "out.zarr.run").exists()


def looks_whole(output):
    """Whether an output is there that says it is complete."""
    metadata = Path(output, "zarr.json")
    if not metadata.exists():
        return False
    return json.loads(metadata.read_text()).get("attributes", {}).get("sam4em", {}).get("complete") is True


def test_a_missing_image(sam4em, tmp_path):
    code, message = sam4em("run", config(tmp_path, tmp_path / "none.zarr"))
    assert code == 3
    assert "none.zarr" in message
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_an_image_of_a_wrong_type(sam4em, tmp_path, dtype):
    zarr.create_array(store=str(tmp_path / "bad.zarr"), shape=SHAPE, dtype=dtype, chunks=(16, 16, 16))
    section = {"url": str(tmp_path / "bad.zarr"), "voxel_size_zyx_nm": [8, 8, 8]}
    code, message = sam4em("run", config(tmp_path, None, image=section))
    assert code == 3
    assert dtype in message
    assert "uint8" in message
    assert nothing_written(tmp_path)


def test_an_image_of_a_wrong_rank(sam4em, tmp_path):
    zarr.create_array(store=str(tmp_path / "flat.zarr"), shape=(30, 40), dtype="uint8", chunks=(16, 16))
    section = {"url": str(tmp_path / "flat.zarr"), "voxel_size_zyx_nm": [8, 8, 8]}
    code, message = sam4em("run", config(tmp_path, None, image=section))
    assert code == 3
    assert "flat.zarr" in message


def test_a_missing_voxel_size_names_the_option(sam4em, tmp_path):
    zarr.create_array(store=str(tmp_path / "plain.zarr"), shape=SHAPE, dtype="uint8", chunks=(16, 16, 16))
    code, message = sam4em("run", config(tmp_path, tmp_path / "plain.zarr"))
    assert code == 2
    assert "--voxel-size" in message


@pytest.mark.parametrize(
    ("roi", "expected"), [("5:5,0:40,0:48", "holds no voxel"), ("0:99,0:40,0:48", "outside the volume")]
)
def test_regions_that_cannot_be(sam4em, tmp_path, image, roi, expected):
    code, message = sam4em("run", config(tmp_path, image, image={"url": str(image), "roi": roi}))
    assert code == 2
    assert expected in message
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("size", ["0,8,8", "-8,8,8", "8,8"])
def test_a_voxel_size_that_is_none(sam4em, image, size):
    code, message = sam4em("segment", str(image), "out.zarr", "--voxel-size", size)
    assert code == 2
    assert "--voxel-size" in message


def test_a_misspelt_key(sam4em, tmp_path, image):
    code, message = sam4em("run", config(tmp_path, image, plan={"blok_zyx": [16, 16, 16]}))
    assert code == 2
    assert "'block_zyx'" in message
    assert "run.yaml" in message


def test_no_such_model(sam4em, tmp_path, image):
    code, message = sam4em("segment", str(image), "out.zarr", "--model", "no-such-model")
    assert code == 5
    assert "no-such-model" in message
    assert nothing_written(tmp_path)


def test_unreadable_weights(sam4em, tmp_path, image):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a model")
    code, message = sam4em("segment", str(image), "out.zarr", "--model", str(path))
    assert code == 5
    assert "broken.safetensors" in message


def test_a_scheduler_that_is_not_there(sam4em, tmp_path, image):
    section = {"kind": "scheduler", "address": "tcp://127.0.0.1:9"}
    code, message = sam4em("run", config(tmp_path, image, cluster=section))
    assert code == 5
    assert "tcp://127.0.0.1:9" in message


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"kind": "slrum"}, "cluster.kind must be one of local, gpus, slurm"),
        ({"kind": "slurm", "cpu_workers": {"jobs": 1}}, "no `sbatch` on the PATH"),
        ({"kind": "slurm", "cpu_workers": {"jobs": 1, "walltime": "00:05:00"}}, "less than one block"),
        ({"kind": "gpus", "devices": [99]}, "torch sees"),
        ("nowhere.yaml", "nowhere.yaml: there is no such file"),
    ],
)
def test_clusters_that_cannot_be(sam4em, tmp_path, image, monkeypatch, cluster, told):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, message = sam4em("run", config(tmp_path, image, cluster=cluster))
    assert code == 2
    assert told in message
    assert nothing_written(tmp_path)


def test_a_block_that_does_not_fit(sam4em, tmp_path, image):
    code, message = sam4em("run", config(tmp_path, image, plan={"task_memory_gib": 0.0001}))
    assert code == 2
    assert "task_memory_gib" in message
    assert nothing_written(tmp_path)


def test_no_run_here(sam4em, tmp_path):
    for command in ("status", "verify", "clean", "view"):
        code, message = sam4em(command, str(tmp_path / "nothing.zarr"))
        assert code == 3, command
        assert "nothing.zarr" in message


def test_a_file_in_the_way_of_the_output(sam4em, tmp_path, image):
    (tmp_path / "file").write_text("in the way")
    outputs = [{"url": str(tmp_path / "file" / "out.zarr"), "chunk_zyx": [16, 16, 16]}]
    code, message = sam4em("run", config(tmp_path, image, outputs=outputs))
    assert code in (2, 3)
    assert "out.zarr" in message
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_output_on_a_read_only_disk(sam4em, tmp_path, image, mount):
    folder = mount("read-only", "size=1m,ro")
    outputs = [{"url": str(folder / "out.zarr"), "chunk_zyx": [16, 16, 16]}]
    code, message = sam4em("run", config(tmp_path, image, outputs=outputs))
    assert code == 3
    assert str(folder / "out.zarr") in message
    assert "writing is not permitted" in message
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("size", ["8k", "32k", "200k"], ids=["at once", "while creating", "on the way"])
def test_no_space_left(sam4em, tmp_path, image, mount, in_this_process, size):
    folder = mount("small", f"size={size}")
    outputs = [{"url": str(folder / "out.zarr"), "chunk_zyx": [16, 16, 16]}]
    code, message = sam4em("run", config(tmp_path, image, outputs=outputs))
    assert code == 3
    assert "no space is left" in message
    assert str(folder) in message
    assert not looks_whole(folder / "out.zarr")


@pytest.mark.parametrize(
    "size",
    [
        "8k",
        "32k",
        "200k",
    ],
    ids=["at once", "while creating", "on the way"],
)
def test_the_same_command_goes_on_once_there_is_space(
    sam4em, tmp_path, image, mount, in_this_process, monkeypatch, size
):
    folder = mount("small", f"size={size}")
    outputs = [{"url": str(folder / "out.zarr"), "chunk_zyx": [16, 16, 16]}]
    path = config(tmp_path, image, outputs=outputs)
    assert sam4em("run", path)[0] == 3
    mount("small", "remount,size=4m")
    # The first command was another process, which ended without room to write that it lets go of the run.
    monkeypatch.setattr(lease, "is_gone", lambda record: True)
    assert sam4em("run", path)[0] == 0
    assert sam4em("verify", path)[0] == 0
    assert looks_whole(folder / "out.zarr")


def test_a_voxel_size_outside_the_range_of_the_model(sam4em, tmp_path, image):
    code, message = sam4em("segment", image, "out.zarr", "--model", "phantom", "--voxel-size", "8,8,40")
    assert code == 2
    assert "4 to 16 nm" in message
    assert "40.0" in message
    assert "--force-voxel-size" in message
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("cut", [0, 9], ids=["empty", "truncated"])
def test_a_damaged_chunk(sam4em, tmp_path, image, in_this_process, cut):
    chunk = image / "0" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-cut] if cut else b"")
    code, message = sam4em("run", config(tmp_path, image))
    assert code == 4
    assert "em.zarr" in message
    assert "16:17,0:32,0:32" in message or "0:17,0:40,0:48" in message
    assert not looks_whole(tmp_path / "out.zarr")
    code, message = sam4em("verify", tmp_path / "out.zarr")
    assert code != 0
    assert not looks_whole(tmp_path / "out.zarr")


def weights_with(path, change):
    """Copy a shipped model after changing its tensors."""
    source = model_path("phantom")
    with safe_open(source, "numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = sorted(tensors)[0]
    change(tensors, name)
    save_file(tensors, path, metadata=metadata)
    return name


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, name: tensors.pop(name),
        lambda tensors, name: tensors.update({name: np.zeros((3, 5), np.float16)}),
    ],
    ids=["missing", "another shape"],
)
def test_weights_of_another_architecture(sam4em, tmp_path, image, in_this_process, change):
    name = weights_with(tmp_path / "other.safetensors", change)
    code, message = sam4em("segment", image, "out.zarr", "--model", "other.safetensors")
    assert code == 5
    assert name in message
    assert "other.safetensors" in message
    assert not looks_whole(tmp_path / "out.zarr")


def test_weights_that_are_no_model_of_ours(sam4em, tmp_path, image):
    save_file({"encoder.weight": np.zeros((3, 5), np.float32)}, tmp_path / "other.safetensors")
    code, message = sam4em("segment", image, "out.zarr", "--model", "other.safetensors")
    assert code == 5
    assert "other.safetensors" in message
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("names", [("object", "object"), ("object", "Object")])
def test_classes_that_clash(sam4em, tmp_path, image, names):
    path = config(tmp_path, image)
    rules = "".join(f"  {name}: {{threshold: 0.{n}}}\n" for n, name in enumerate(names, 3))
    Path(path).write_text(f"{Path(path).read_text()}classes:\n{rules}")
    code, message = sam4em("run", path)
    assert code == 2
    assert "run.yaml" in message
    assert all(name in message for name in names)
    assert nothing_written(tmp_path)


def test_a_key_given_twice_in_a_training_config(sam4em, tmp_path):
    (tmp_path / "train.yaml").write_text("training:\n  seed: 1\n  seed: 2\n")
    code, message = sam4em("train", "train.yaml")
    assert code == 2
    assert "train.yaml: line 3: key 'seed'" in message
    assert [path.name for path in tmp_path.iterdir()] == ["train.yaml"]


def test_the_output_of_another_run(sam4em, tmp_path, image, in_this_process):
    assert sam4em("run", config(tmp_path, image))[0] == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out.zarr").rglob("*"))
    same = [{"url": str(tmp_path / "out.zarr"), "chunk_zyx": [16, 16, 16]}]
    code, message = sam4em("run", config(tmp_path, image, segmenter={"kind": "threshold", "foreground": "bright"}))
    assert code == 2
    assert "segmenter.foreground" in message
    assert "--restart" in message
    other = [{"url": str(tmp_path / "other.zarr"), "chunk_zyx": [16, 16, 16]}, *same]
    changed = {"kind": "threshold", "foreground": "bright"}
    code, message = sam4em("run", config(tmp_path, image, segmenter=changed, outputs=other))
    assert code == 2
    assert str(tmp_path / "out.zarr") in message
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out.zarr").rglob("*")) == before
    assert not looks_whole(tmp_path / "other.zarr")


def test_a_second_driver(sam4em, tmp_path, image):
    with Lease(ObjectStore(str(tmp_path / "out.zarr.run"))):
        code, message = sam4em("run", config(tmp_path, image))
    assert code == 2
    assert f"process {os.getpid()} on " in message
    assert not (tmp_path / "out.zarr").exists()


def test_a_mask_of_signed_labels(sam4em, tmp_path, image):
    zarr.create_array(store=str(tmp_path / "mask.zarr"), shape=SHAPE, dtype="int16", chunks=(16, 16, 16))
    section = {"url": str(image), "mask_url": str(tmp_path / "mask.zarr"), "mask_voxel_size_zyx_nm": [8, 8, 8]}
    code, message = sam4em("run", config(tmp_path, None, image=section))
    assert code == 3
    assert "mask.zarr" in message
    assert "int16" in message
    assert nothing_written(tmp_path)


def test_a_demo_where_a_file_is(sam4em, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, message = sam4em("demo", "--out", "file")
    assert code == 2
    assert "--out file" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_a_demo_on_a_read_only_disk(sam4em, mount):
    code, message = sam4em("demo", "--out", mount("read-only", "size=1m,ro") / "demo")
    assert code == 3
    assert "writing is not permitted" in message


def test_stitching_again_what_cannot_be(sam4em, image, tmp_path, in_this_process):
    out = tmp_path / "out.zarr"
    code, err = sam4em("restitch", out, "--set", "min_iou=0.4")
    assert (code, "there is no" in err) == (3, True)
    path = config(tmp_path, image, plan={"block_zyx": [16, 32, 32]})
    code, err = sam4em("run", path)
    assert code == 0, err
    for arguments, expected in (
        ((), "give --set KEY=VALUE or --veto FILE"),
        (("--set", "threshold=0.4"), "needs a new run"),
        (("--set", "min_iou=7"), "classes.object.min_iou"),
        (("--veto", tmp_path / "none.csv"), "there is no such file"),
    ):
        code, err = sam4em("restitch", out, *arguments)
        assert (code, expected in err) == (2, True), err
    assert sam4em("seams", out)[0] == 0
    assert sam4em("restitch", path, "--set", "min_size_nm3=1e5", "--output", tmp_path / "again")[0] == 0
    assert sam4em("verify", tmp_path / "again")[0] == 0
    assert sam4em("status", tmp_path / "again")[0] == 0
