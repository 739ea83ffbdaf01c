"""Mitochondria that touch, on rendered EM: connected components against watersheds, AP75 of a trained Spatial-SAM.

    OMP_NUM_THREADS=1 python tests/bench/touching.py FOLDER [--unet-minutes 12] [--mask-minutes 6]

The shapes are the instances of UroCell's labels, grown by 60 nm so that most of them touch another, and drawn as EM
(`touching_tissue.py`). U-Net and network around it start from the shipped ones and learn the shapes of `fib1-4-3-0`
in three tissues, whose last slices choose weights and threshold. Those of `fib1-3-3-0` are segmented once with each way
of parting objects and scored against the grown instances. Minutes are processor time. Everything stays in FOLDER, where
what was finished is not made again; `looks/` holds slices to look at. FOLDER must lie outside the repository: the
labels are not for sharing there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
import zarr
from measure import report
from PIL import Image
from skimage.segmentation import find_boundaries
from touching_tissue import grown, rendered, touching

from pipeline.config import RunConfig
from pipeline.config.read import parse_config, read_yaml
from pipeline.geometry import Box
from pipeline.labels import splits
from pipeline.labels.contingency import count_pairs
from pipeline.labels.scores import detection_scores
from pipeline.phantom.spec import PhantomSpec
from pipeline.run import api
from pipeline.run.compare import evaluate_stored
from pipeline.storage import StorageOptions, open_volume
from pipeline.training import TrainingFile, load_volume, run_training
from sam4em_core.checkpoint import load_unet
from sam4em_core.training import TrainingConfig
from sam4em_core.training.validate import choose_region, predict_field_region

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPES = REPOSITORY / "../shared/data/urocell_mito_labels.zarr"
MODELS = REPOSITORY / "sam4em_core/models"
# Shapes and seed of the tissue. What trains lies in three tissues: one is soon known by heart.
VOLUMES = {
    "train-501": ("fib1-4-3-0", 501),
    "train-503": ("fib1-4-3-0", 503),
    "train-504": ("fib1-4-3-0", 504),
    "report": ("fib1-3-3-0", 502),
}
VOXEL_NM = (15.0, 16.0, 16.0)
GROWN_VOXELS = 4
TRAIN_SLICES, CHOOSE_SLICES = [0, 192], [208, 256]
CLASS = "mitochondrion"
VALLEYS = (0.4, 0.5, 0.6, 0.7)
RULES: dict[str, dict[str, Any]] = {
    "components": {"method": "components"},
    "watershed on the mask": {"method": "watershed"},
    "watershed on the signed distances": {"method": "watershed", "watershed_on": "sdf"},
    # What the choose slices ask for (`choose_ap75_by_valley`): this U-Net blurs.
    "the same, valleys of half the peak": {"method": "watershed", "watershed_on": "sdf", "valley_fraction": 0.5},
}


def main() -> int:
    """Draw, train, segment, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--unet-minutes", type=float, default=12.0)
    parser.add_argument("--mask-minutes", type=float, default=6.0)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if folder.is_relative_to(REPOSITORY):
        sys.stderr.write(f"{folder} lies inside the repository; choose a place outside\n")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    tissue = {name: drawn(folder, name, *source) for name, source in VOLUMES.items()}
    unet = trained(folder, "sdf", arguments.unet_minutes, {"base": str(MODELS / "unets/phantom-sdf.safetensors")})
    bases = {"base": str(MODELS / "phantom-spatial.safetensors"), "sdf": str(unet)}
    model = trained(folder, "spatial", arguments.mask_minutes, bases)
    valleys = by_valley(folder, unet)
    scores = {}
    for name, rule in RULES.items():
        labels = segmented(folder, model, name, rule)
        scores[name] = scored(labels, folder / "report" / "instances.zarr")
        looked_at(folder, labels, name)
    minutes = [arguments.unet_minutes, arguments.mask_minutes]
    report({"tissue": tissue, "minutes": minutes, "choose_ap75_by_valley": valleys, "scores": scores})
    return 0


def drawn(folder: Path, name: str, shapes_of: str, seed: int) -> dict[str, Any]:
    """Write image and instances of one volume, unless they are there; what touches what."""
    place = folder / name
    if not (place / "image.zarr").exists():
        shapes = open_volume(str(SHAPES / shapes_of / "0"), kind="labels")
        labels = grown(shapes.read(Box.of_shape(shapes.info.shape)), GROWN_VOXELS)
        spec = PhantomSpec(seed=seed, shape_zyx=shapes.info.shape, voxel_size_zyx_nm=VOXEL_NM)
        write(place / "instances.zarr", labels)
        write(place / "image.zarr", rendered(labels, spec))
    stored = np.asarray(zarr.open_array(place / "instances.zarr", mode="r")[...])
    return {
        "objects": int(stored.max()),
        "touching": touching(stored),
        "foreground": round(float((stored > 0).mean()), 4),
    }


def write(path: Path, values: NDArray[Any]) -> None:
    """Write one volume under a name of its own first, so that a killed run leaves no half of it."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    array = zarr.create_array(
        store=str(unfinished),
        shape=values.shape,
        chunks=(64, 64, 64),
        dtype=values.dtype,
        dimension_names=["z", "y", "x"],
        overwrite=True,
    )
    array[...] = values
    unfinished.rename(path)


def trained(folder: Path, part: str, minutes: float, bases: dict[str, str]) -> Path:
    """Train as `phantom-sdf` or `phantom-spatial` was, on the train volumes; the best checkpoint."""
    run_dir = folder / part
    training = read_yaml(REPOSITORY / f"configs/train/phantom-{part}.yaml")["training"]
    training.update(bases, name=f"touching-{part}")
    training["stages"][0].update(recipe="full", limit_minutes=minutes)
    training["card"].update(
        data="UroCell's shapes of mitochondria, rendered",
        license="not for sharing: the shapes are CC BY-NC-SA 4.0",
        command="python tests/bench/touching.py FOLDER",
    )
    volumes = [
        {
            "name": name,
            "image": str(folder / name / "image.zarr"),
            "labels": {CLASS: str(folder / name / "instances.zarr")},
            "voxel_size_zyx_nm": list(VOXEL_NM),
            "train": TRAIN_SLICES,
            "choose": CHOOSE_SLICES,
        }
        for name in VOLUMES
        if name.startswith("train")
    ]
    config = folder / f"{part}.yaml"
    config.write_text(yaml.safe_dump({"training": training, "volumes": volumes}, sort_keys=False))
    return run_training(config, run_dir=run_dir, resume=run_dir.exists())


def by_valley(folder: Path, unet: Path) -> dict[str, list[float]]:
    """AP75 of the true masks of the choose slices, parted along what the U-Net predicts, by the valley that parts."""
    source = folder / "sdf.yaml"
    document = parse_config(read_yaml(source), TrainingFile, str(source))
    config = parse_config(document.training, TrainingConfig, str(source))
    network, _ = load_unet(unet)
    found = {}
    for section in document.volumes:
        volume = load_volume(section, config.classes, StorageOptions(), with_ids=True)
        field_zyx = predict_field_region(network, choose_region(volume, config))[0]
        first = CHOOSE_SLICES[0]
        ids_zyx = volume.ids_czyx[0][first : first + len(field_zyx)].astype(np.uint32)
        mask_zyx = np.where(ids_zyx > 0, np.uint8(255), np.uint8(0))
        depth_nm = splits.inside_distance(np.rint(field_zyx * 255).astype(np.uint8), network.config.tau_nm)
        found[section.name] = [parted(mask_zyx, depth_nm, ids_zyx, valley) for valley in VALLEYS]
    return found


def parted(
    mask_zyx: NDArray[np.uint8], depth_nm: NDArray[np.float32], ids_zyx: NDArray[np.uint32], valley: float
) -> float:
    """Part a mask where a valley keeps no more than a share of the lower peak; AP75 of the parts."""
    labels = splits.segment_watershed(mask_zyx, 128, VOXEL_NM, 200.0, 0, depth_nm, valley)
    return round(detection_scores(count_pairs(labels, ids_zyx), 75).average_precision, 3)


def segmented(folder: Path, model: Path, name: str, rule: dict[str, Any]) -> Path:
    """Segment the report volume with one rule."""
    output = folder / f"{name.replace(' ', '-')}.zarr"
    config = parse_config(
        {
            "image": {"url": str(folder / "report" / "image.zarr"), "voxel_size_zyx_nm": list(VOXEL_NM)},
            "outputs": [{"url": str(output)}],
            "segmenter": {"kind": "sam4em", "model": str(model)},
            "classes": {CLASS: {"min_size_nm3": 1.0e6, **rule}},
            "cluster": {"workers": 1},
        },
        RunConfig,
        name,
    )
    api.run_config(config)
    return output


def scored(labels: Path, truth: Path) -> dict[str, Any]:
    """Score what was segmented against the grown instances."""
    scores = evaluate_stored(str(labels), str(truth), voxel_size_zyx_nm=VOXEL_NM, hd95_cap_nm=0.0).as_dict()
    found = scores["instances"]
    wanted = ("ap50", "ap75", "voi_split_bits", "voi_merge_bits", "adapted_rand_error")
    return {
        "objects": [scores["num_predicted"], scores["num_true"]],
        "dice": round(scores["dice"], 4),
        **{key: round(found[key], 4) for key in wanted},
    }


def looked_at(folder: Path, labels: Path, name: str) -> None:
    """Draw three slices with the borders of what was found, and those of the truth beside it."""
    (folder / "looks").mkdir(exist_ok=True)
    image = zarr.open_array(folder / "report" / "image.zarr", mode="r")
    truth = zarr.open_array(folder / "report" / "instances.zarr", mode="r")
    found = open_volume(str(labels), kind="labels")
    rows = []
    for z in (64, 128, 192):
        grey = np.asarray(image[z])
        box = Box((z, 0, 0), (z + 1, *grey.shape))
        sides = (found.read(box)[0], np.asarray(truth[z]))
        rows.append(np.concatenate([outlined(grey, side) for side in sides], axis=1))
    drawing = Image.fromarray(np.concatenate(rows))
    drawing.resize((drawing.width * 2, drawing.height * 2), Image.Resampling.NEAREST).save(
        folder / "looks" / f"{name.replace(' ', '-')}.png"
    )


def outlined(grey_yx: NDArray[np.uint8], labels_yx: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Give a slice in color, with borders of labels in red."""
    color = np.repeat(grey_yx[..., None], 3, axis=2)
    color[find_boundaries(labels_yx.astype(np.int64), mode="inner")] = (255, 40, 40)
    return color


if __name__ == "__main__":
    sys.exit(main())
