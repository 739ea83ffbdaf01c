import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.ledger import RunManifest, write_manifest
from pipeline.run import show
from pipeline.run.looks import view_run
from pipeline.run.outputs import run_url_for
from pipeline.run.show import run_url_of_output, scene_of_output
from pipeline.storage import ImageSpec, ImageWriter, LabelVolumeSpec, ObjectStore, StorageOptions, label_writer

SHAPE = (11, 23, 37)
SIZE_NM = (30.0, 8.0, 8.0)


@pytest.fixture
def image(tmp_path):
    url = str(tmp_path / "em.zarr")
    writer = ImageWriter(ImageSpec(url, SHAPE, "uint8", SIZE_NM, chunk_zyx=(16, 32, 64)))
    writer.create()
    writer.write(writer.grid().box(0), np.ones(SHAPE, np.uint8))
    return url


def move(image_url, translation_nm):
    path = Path(image_url, "zarr.json")
    metadata = json.loads(path.read_text())
    (level,) = metadata["attributes"]["ome"]["multiscales"][0]["datasets"]
    level["coordinateTransformations"] = [
        {"type": "scale", "scale": list(SIZE_NM)},
        {"type": "translation", "translation": translation_nm},
    ]
    path.write_text(json.dumps(metadata))


def a_run(image_url, urls, roi=None, first_output=None):
    """Write what the viewer needs of a run: its manifest and its outputs."""
    config = RunConfig.model_validate(
        {
            "image": {"url": image_url, "roi": roi},
            "outputs": [{"url": url} for url in urls],
            "segmenter": {"kind": "threshold"},
        }
    )
    outputs = [{"kind": "output", "url": url} for url in urls]
    for url in urls:
        writer = label_writer(
            "ome-zarr" if ".zarr" in url else "precomputed", LabelVolumeSpec(url, SHAPE, SIZE_NM, (4, 8, 16))
        )
        writer.create()
    manifest = RunManifest(
        config=config.model_dump(mode="json", include={"image", "outputs", "segmenter", "classes", "plan"}),
        segmenter={}, image={}, grids={}, num_tasks={}, grey_range=(0.0, 255.0), result_version=1, outputs=outputs,
        packages={},
    )  # fmt: skip
    write_manifest(ObjectStore(run_url_for(first_output or urls[0])), manifest)
    return scene_of_output(urls[0])


def test_several_classes_in_two_outputs_have_names_of_their_own(image, tmp_path):
    urls = [f"{tmp_path}/{output}/{name}" for output in ("out.zarr", "out") for name in ("mito", "glia")]
    names = [layer.name for layer in a_run(image, urls, first_output=f"{tmp_path}/out.zarr").layers]
    assert names == ["image", "out.zarr/mito", "out.zarr/glia", "out/mito", "out/glia"]


def test_equal_names_in_two_folders_and_one_called_image(image, tmp_path):
    urls = [f"{tmp_path}/{name}" for name in ("a/seg.zarr", "b/seg.zarr", "c/image")]
    names = [layer.name for layer in a_run(image, urls).layers]
    assert names == ["image", "a/seg.zarr", "b/seg.zarr", "c/image"]


def test_a_region_of_interest_fills_the_view_and_is_drawn(image, tmp_path):
    scene = a_run(image, [f"{tmp_path}/out.zarr"], roi="2:9,5:17,7:31")
    assert scene.roi is not None
    assert (scene.roi.start, scene.roi.stop) == ((2, 5, 7), (9, 17, 31))
    assert (scene.start_zyx, scene.shape_zyx) == ((2, 5, 7), (7, 12, 24))


def test_without_a_region_the_whole_volume_fills_the_view(image, tmp_path):
    scene = a_run(image, [f"{tmp_path}/out.zarr"])
    assert scene.roi is None
    assert (scene.start_zyx, scene.shape_zyx) == ((0, 0, 0), SHAPE)


def test_the_region_lies_where_the_image_says_it_begins(image, tmp_path):
    move(image, [60.0, 24.0, 40.0])
    scene = a_run(image, [f"{tmp_path}/out.zarr"], roi="2:9,5:17,7:31")
    assert scene.roi is not None
    assert scene.roi.start == scene.start_zyx == (4, 8, 12)


@pytest.mark.parametrize("scheme", ["s3://", "gs://"])
def test_the_run_of_one_class_is_found_in_an_object_store_too(monkeypatch, scheme):
    asked = []

    def read(store):
        asked.append(store.url)
        return True if len(asked) == 2 else None

    monkeypatch.setattr(show, "read_manifest", read)
    found = run_url_of_output(f"{scheme}bucket/out.zarr/mito/", StorageOptions())
    assert found == asked[1] == f"{scheme}bucket/out.zarr.run"


def test_a_run_that_is_not_complete_is_shown_as_far_as_it_is_and_says_so(image, tmp_path):
    scene = a_run(image, [f"{tmp_path}/out.zarr"])
    assert scene.title == "out.zarr (not complete)"
    assert [layer.kind for layer in scene.layers] == ["image", "segmentation"]
    notes = []
    with pytest.raises(UserError, match="does not exist"):
        view_run(
            f"{tmp_path}/out.zarr",
            port=None,
            truth=None,
            screenshot=tmp_path / "nowhere" / "view.png",
            on_url=notes.append,
            on_note=notes.append,
        )
    assert notes == ["the run is not complete: what is missing is shown as background, or not yet there"]
