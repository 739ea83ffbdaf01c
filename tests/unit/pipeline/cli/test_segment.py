from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from pipeline import segmenter
from pipeline.cli import main
from pipeline.cli import segment as command


@pytest.mark.parametrize(("needs_field", "expected"), [(True, "sdf"), (False, "mask")])
def test_watershed_floods_what_the_model_predicts(monkeypatch, needs_field, expected):
    model = SimpleNamespace(needs_field=needs_field)
    header = SimpleNamespace(model=model, classes=("mito",))
    monkeypatch.setattr(segmenter, "model_header", lambda name: header)
    seen = []
    monkeypatch.setattr(command, "_run", lambda config, *options: seen.append(config))
    result = CliRunner().invoke(main.app, ["segment", "em.zarr", "out.zarr", "--model", "x", "--watershed"])
    assert result.exit_code == 0, result.output
    assert seen[0].classes["mito"].watershed_on == expected
