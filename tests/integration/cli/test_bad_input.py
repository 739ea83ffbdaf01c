"""Bad input at the command line: a message that names the thing and the mend, the family's exit code, no traceback."""

import sys

import numpy as np
import pytest
import zarr

from pipeline.cli import main
from pipeline.storage import ImageSpec, ImageWriter

SHAPE = (17, 40, 48)


@pytest.fixture
def sam4em(monkeypatch, capsys, tmp_path):
    """Call the command; give exit code and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sam4em", *arguments])
        code = 0
        try:
            main.entry_point()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.err

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
    import yaml

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
    section = {"scheduler_address": "tcp://127.0.0.1:9"}
    code, message = sam4em("run", config(tmp_path, image, cluster=section))
    assert code == 5
    assert "tcp://127.0.0.1:9" in message


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


def test_an_output_that_nobody_may_write(sam4em, tmp_path, image):
    (tmp_path / "file").write_text("in the way")
    outputs = [{"url": str(tmp_path / "file" / "out.zarr"), "chunk_zyx": [16, 16, 16]}]
    code, message = sam4em("run", config(tmp_path, image, outputs=outputs))
    assert code in (2, 3)
    assert "out.zarr" in message
