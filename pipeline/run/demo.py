"""`sam4em demo`: the whole way on a synthetic volume.

1. draw a phantom: image and true mitochondria
2. segment it with the model `phantom`, as OME-Zarr and precomputed with the same ids
3. verify what was written
4. score it against the truth
5. draw an overview picture
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.phantom import PhantomSpec
from pipeline.run import api
from pipeline.run.compare import evaluate_stored
from pipeline.run.phantom import PhantomLayer, write_phantom
from pipeline.run.reports import make_folder, write_report
from pipeline.run.show import draw_run_overview

# Two by two tiles of the model, two windows in z; a seed that training never saw.
DEMO_PHANTOM = PhantomSpec(seed=2026, shape_zyx=(64, 480, 480), voxel_size_zyx_nm=(8.0, 8.0, 8.0))


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    segmentation: Path
    """The output to look at."""
    written: tuple[Path, ...]
    """Everything that was written, the run directory aside."""
    scores: dict[str, Any]
    """Scores against the truth."""


def run_demo(folder: Path, *, workers: int, on_step: Callable[[str], None]) -> DemoResult:
    """Carry out the demo.

    Args:
        folder: where to write; made where it is not there.
        workers: worker processes.
        on_step: told what is being done.

    Raises:
        Sam4emError: see the single steps.
    """
    make_folder(folder, "--out")
    image, truth = folder / "image.zarr", folder / "truth.zarr"
    on_step(f"drawing a phantom of {'x'.join(map(str, DEMO_PHANTOM.shape_zyx))} voxels")
    layers = (PhantomLayer("image", str(image)), PhantomLayer("mitochondria", str(truth)))
    write_phantom(DEMO_PHANTOM, layers, workers=workers)
    config = demo_config(folder, workers)
    on_step("segmenting its mitochondria")
    api.run_config(config)
    on_step("verifying what was written")
    segmentation = Path(config.outputs[0].url)
    api.verify_report(str(segmentation))
    on_step("scoring it against the truth")
    scores = evaluate_stored(str(segmentation), str(truth)).as_dict()
    scores_file = folder / "scores.json"
    write_report(scores_file, scores)
    picture = draw_run_overview(str(image), str(segmentation), folder / "overview.png")
    written = (image, truth, *(Path(output.url) for output in config.outputs), scores_file, picture)
    return DemoResult(segmentation, written, scores)


def demo_config(folder: Path, workers: int) -> RunConfig:
    """Give the demo's config with its addresses inside a folder."""
    text = (resources.files("pipeline") / "resources" / "demo.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    values["image"]["url"] = str(folder / values["image"]["url"])
    for output in values["outputs"]:
        output["url"] = str(folder / output["url"])
    values["cluster"] = {"workers": workers}
    return parse_config(values, RunConfig, "demo.yaml")
