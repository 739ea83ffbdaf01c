"""What the images run is what `.ci/run` has tried: one script, and nothing beside it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_image_is_made_by_the_script_alone(path):
    runs = [line for line in path.read_text().splitlines() if line.startswith("RUN ")]
    assert len(runs) == 1
    assert runs[0].split()[2] == "/src/deploy/docker/install.sh"
    assert "PYTHONSAFEPATH=1" in path.read_text()


def test_the_images_of_the_manifests_are_those_that_are_built():
    built = {f"sam4em:{path.stem}" for path in FILES}
    text = "".join(path.read_text() for path in (ROOT / "deploy" / "k8s").glob("*.yaml"))
    assert {word for word in text.split() if word.startswith("sam4em:")} == built


def test_ci_runs_the_script():
    assert "deploy/docker/install.sh" in (ROOT / ".ci" / "run").read_text()
