import json
from urllib.parse import unquote

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.viewer.link import make_link
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.scene import Layer, Scene

VOXEL = (30.0, 8.0, 8.0)


def make_scene(location, **options):
    image = Layer("em", "image", "https://host/em.zarr", "zarr", VOXEL)
    return Scene((image, Layer("seg", "segmentation", location, "precomputed", VOXEL, **options)), (13, 61, 83), VOXEL)


def test_a_link_holds_the_whole_state():
    url, document = make_link(
        make_scene("s3://bucket/seg/", mesh_location="gs://other/seg.mesh", skeleton_location="s3://b/seg.skeletons")
    )
    page, _, state = url.partition("#!")
    assert page == "https://neuroglancer-demo.appspot.com/"
    assert json.loads(unquote(state))["layers"] == json.loads(document)["layers"]
    sources = json.loads(document)["layers"][1]["source"]
    assert [source["url"] for source in sources] == [
        "precomputed://s3://bucket/seg",
        "precomputed://gs://other/seg.mesh",
        "precomputed://s3://b/seg.skeletons",
    ]


def test_another_page():
    assert make_link(make_scene("https://host/seg"), page="https://my.org/ng")[0].startswith("https://my.org/ng/#!")


def test_what_others_cannot_read_is_named():
    with pytest.raises(UserError, match=r"seg cannot be read by other people's browsers; .*without --link"):
        make_link(make_scene("/data/seg"))
    reader = BoxReader.of_array(np.zeros((2, 3, 5), np.uint8), VOXEL)
    layer = Layer("em", "image", "https://host/em.tif", "reader", VOXEL, reader=reader)
    with pytest.raises(UserError, match="em cannot be read"):
        make_link(Scene((layer,), (2, 3, 5), VOXEL))
