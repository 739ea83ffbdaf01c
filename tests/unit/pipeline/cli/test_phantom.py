import pytest
from typer.testing import CliRunner

from pipeline.cli import main, phantom
from pipeline.errors import ConfigError
from pipeline.phantom import PhantomSpec


@pytest.fixture
def drawn(monkeypatch):
    """Collect what would be drawn."""
    specs = []
    monkeypatch.setattr(phantom, "draw", lambda spec, *_, **__: specs.append(spec))
    return specs


def call(*options):
    return CliRunner().invoke(main.app, ["phantom", "out", *options])


def test_every_option_reaches_the_phantom(drawn):
    ended = call(
        "--shape", "5,7,11", "--voxel-size", "30,4,5", "--seed", "3", "--noise", "2.5", "--contrast-drift", "0.2",
        "--section-jitter", "7", "--missing-sections", "0.1", "--damaged-sections", "0.3", "--layers", "image, glia",
    )  # fmt: skip
    assert drawn == [PhantomSpec(3, (5, 7, 11), (30.0, 4.0, 5.0), 2.5, 0.2, 7.0, 0.1, 0.3)]
    assert ended.stdout.split() == ["out/image.zarr", "out/glia.zarr"]


def test_without_options_it_is_the_phantom_of_the_spec(drawn):
    call()
    assert drawn == [PhantomSpec(voxel_size_zyx_nm=(8.0, 8.0, 8.0))]


@pytest.mark.parametrize(("option", "value"), [("--section-jitter", "51"), ("--contrast-drift", "1.5")])
def test_what_means_nothing_is_refused(drawn, option, value):
    assert isinstance(call(option, value).exception, ConfigError)
    assert drawn == []
