"""What may not happen when a package is imported; the floors themselves are held by `lint-imports`."""

import subprocess
import sys

import pytest


def loaded_after(statement):
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import sam4em_core", "import sam4em_core.header, sam4em_core.tiles", "import pipeline.cli.main"],
)
def test_torch_is_not_imported_before_it_is_needed(statement):
    assert "torch" not in loaded_after(statement)


def test_the_command_line_starts_without_viewer_and_cloud_volume():
    modules = loaded_after("import pipeline.cli.main")
    assert not {"neuroglancer", "cloudvolume", "sam2", "peft"} & modules


@pytest.mark.parametrize(
    "statement",
    ["import pipeline.cli.main", "import pipeline.run.shape_run", "import pipeline.run.api, pipeline.run.show"],
)
def test_kimimaro_is_not_imported_before_a_skeleton_is_wanted(statement):
    assert not {"kimimaro", "dijkstra3d"} & loaded_after(statement)
