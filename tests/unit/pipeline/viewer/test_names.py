import pytest

from pipeline.viewer.names import name_layers


@pytest.mark.parametrize(
    ("locations", "expected"),
    [
        (["/d/out.zarr", "/d/out"], ["out.zarr", "out"]),
        (["out.zarr/mito", "out.zarr/glia"], ["mito", "glia"]),
        (
            ["/d/out.zarr/mito", "/d/out.zarr/glia", "/d/out/mito", "/d/out/glia"],
            ["out.zarr/mito", "out.zarr/glia", "out/mito", "out/glia"],
        ),
        (["a/seg.zarr", "b/seg.zarr", "c/other"], ["a/seg.zarr", "b/seg.zarr", "other"]),
        (["s3://one/seg", "gs://one/seg"], ["s3://one/seg", "gs://one/seg"]),
        (["/e/d/image", "/e/d/roi/", "/e/d/truth"], ["d/image", "d/roi", "d/truth"]),
        (["image"], ["image (segmentation)"]),
        (["seg", "/d/seg"], ["seg", "/d/seg"]),
        ([], []),
    ],
)
def test_the_shortest_end_that_tells_apart(locations, expected):
    names = name_layers(locations, taken=("image", "roi", "truth"))
    assert names == expected
    assert len(set(names)) == len(names)
