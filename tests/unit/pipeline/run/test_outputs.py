import pytest

from pipeline.run.outputs import run_url_for


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("out/mito.zarr", "out/mito.zarr.run"),
        ("out/mito/", "out/mito.run"),
        ("em.zarr/labels/mito", "em.zarr.labels.mito.run"),
        ("s3://bucket/em.zarr/labels/x.zarr", "s3://bucket/em.zarr.labels.x.zarr.run"),
    ],
)
def test_the_run_directory_is_beside_the_output_and_never_inside_a_zarr(output, expected):
    assert run_url_for(output) == expected
