"""The table of rows: set x method x share of the labels x seed, and which tier runs them.

Plain data; nothing here imports torch, so that listing rows and writing tables is instant.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal

Tier = Literal["S", "L", "P"]
SEEDS = (0, 1, 2)
MAIN_METHODS = ("none", "two-stage", "memory", "unet3d")
MAIN_SETS = ("lucchi", "phantom")
MEMORY_METHODS = ("memory-logits", "memory-sdf-up", "memory-sdf-own", "memory-sdf")
FAR_METHODS = ("memory-sdf-own-far", "memory-sdf-far")


@dataclass(frozen=True)
class Method:
    """What is trained and how it is read out."""

    title: str
    """Name in the tables."""
    kind: Literal["sam", "peer", "spatial"]
    """`sam`: our network through the core's own training. `peer`: a MONAI network in this folder's loop. `spatial`: a
    network around a U-Net (`spatial_rows`)."""
    memory: Literal["volume", "none"] = "volume"
    """3D memory or none; `sam` only."""
    two_stage: bool = True
    """Whether the refining decoder is there; `sam` only."""
    random_start: bool = False
    """Random weights even where the set has a base; `sam` only."""
    lora_rank: int | None = None
    """Stages A and B with LoRA of this rank in place of full fine-tuning."""
    weights_of: str | None = None
    """Method whose trained weights are read out in another way; nothing is trained where they are there."""
    reading: Literal["both", "up", "slices"] = "both"
    """`both` z directions; `up`: +z only; `slices`: the memory is empty at every slice."""
    dimensions: Literal[2, 3] = 3
    """Of a peer's convolutions."""
    learning_rate: float = 1e-3
    """Of a peer."""
    variant: str = ""
    """How it learns from few labels: see `spatial_rows`."""
    sdf_memory: tuple[tuple[str, str | bool | int], ...] = ()
    """Settings of the memory of signed distances that differ; `spatial` only."""
    half: bool = False
    """Whether it trains under bfloat16 autocast in tier S too."""


METHODS: dict[str, Method] = {
    "none": Method("SAM4EM, no memory, one decoder", "sam", memory="none", two_stage=False),
    "two-stage": Method("+ two-stage decoding", "sam", memory="none"),
    "memory": Method("+ 3D memory, both z directions", "sam"),
    "unet3d": Method("3D U-Net (MONAI)", "peer", learning_rate=3e-3),
    "none-random": Method(
        "No memory, one decoder, from random weights", "sam", memory="none", two_stage=False, random_start=True
    ),
    "memory-random": Method("3D memory, from random weights", "sam", random_start=True),
    "memory-one-direction": Method("3D memory, read in +z only", "sam", weights_of="memory", reading="up"),
    "sam2-slices": Method("SAM2 slice by slice (memory emptied)", "sam", weights_of="memory", reading="slices"),
    "lora-4": Method("3D memory, LoRA rank 4", "sam", lora_rank=4),
    "lora-16": Method("3D memory, LoRA rank 16", "sam", lora_rank=16),
    "lora-64": Method("3D memory, LoRA rank 64", "sam", lora_rank=64),
    "unet2d": Method("2D U-Net (MONAI)", "peer", dimensions=2),
    "unet3d-rate-1": Method("3D U-Net, rate 1e-3 (choose slices only)", "peer", learning_rate=1e-3),
    "unet3d-rate-3": Method("3D U-Net, rate 3e-3 (choose slices only)", "peer", learning_rate=3e-3),
    # Few labels: several trainings share the minutes, so all of these train in bfloat16, and twice as long.
    "spatial": Method("Spatial-SAM, two rounds", "spatial", variant="rounds", half=True),
    "spatial-truth": Method("Spatial-SAM, no pseudo-labels", "spatial", variant="truth", half=True),
    "none-half": Method("SAM4EM, no memory, one decoder, bfloat16", "sam", memory="none", two_stage=False, half=True),
    "memory-half": Method("SAM4EM, 3D memory, bfloat16", "sam", half=True),
    "unet3d-half": Method("3D U-Net (MONAI), bfloat16", "peer", learning_rate=3e-3, half=True),
    "unet3d-pseudo": Method("3D U-Net (MONAI), pseudo-labels", "peer", learning_rate=3e-3, variant="pseudo", half=True),
    "cps": Method("3D U-Net (MONAI), cross pseudo supervision", "peer", learning_rate=3e-3, variant="cps", half=True),
    "memory-logits": Method(
        "Memory: logits, one way",
        "spatial",
        variant="memory-logits",
        sdf_memory=(("source", "logits"), ("direction", "lower"), ("injection", "sigmoid")),
        half=True,
    ),
    "memory-sdf-up": Method(
        "Memory: SDF, one way", "spatial", variant="memory-sdf", sdf_memory=(("direction", "lower"),), half=True
    ),
    "memory-sdf-own": Method(
        "Memory: SDF, both ways, own slice",
        "spatial",
        variant="memory-sdf",
        sdf_memory=(("include_own", True),),
        half=True,
    ),
    "memory-sdf": Method("Memory: SDF, both ways", "spatial", variant="memory-sdf", half=True),
    # Neighbors that span the truncation of the distances, as far as cubic voxels let them.
    "memory-sdf-own-far": Method(
        "Memory: SDF, both ways, own slice, every fifth",
        "spatial",
        variant="memory-sdf",
        sdf_memory=(("include_own", True), ("stride", 5)),
        half=True,
    ),
    "memory-sdf-far": Method(
        "Memory: SDF, both ways, every fifth",
        "spatial",
        variant="memory-sdf",
        sdf_memory=(("stride", 5),),
        half=True,
    ),
}
"""Methods by the name that rows carry."""


@dataclass(frozen=True)
class Row:
    """One cell of the tables, and one process."""

    tier: Tier
    """S: two cores. L: a GPU. P: pilots for the peer's learning rate, scored on the choose slices alone."""
    set: str
    """Name of the data set."""
    method: str
    """Name of the method."""
    labels_percent: int
    """Share of the training slices that carry labels."""
    seed: int
    """Seed of every random draw."""

    @property
    def minutes(self) -> float:
        """Training time: four minutes for each of the two networks of Spatial-SAM, and as much for the rows beside it.

        Twice that where pseudo-labels are made and learnt from again.
        """
        method = METHODS[self.method]
        if not method.half:
            return 4.0
        return 16.0 if method.variant in ("rounds", "cps") else 8.0

    @property
    def name(self) -> str:
        """Name of the row, of its result file and of its work folder."""
        tier = "" if self.tier == "S" else f"{self.tier}-"
        return f"{tier}{self.set}_{self.method}_{self.labels_percent:03d}_s{self.seed}"

    def with_method(self, method: str) -> Row:
        """The same row of another method."""
        return Row(self.tier, self.set, method, self.labels_percent, self.seed)


def small_tier() -> list[Row]:
    """Rows of tier S: three seeds of the main table first, then the rows with one seed."""
    main = [
        Row("S", name, method, percent, seed)
        for seed in SEEDS
        for name in MAIN_SETS
        for percent in (100, 6)
        for method in MAIN_METHODS
    ]
    singles = _single_rows("S", "lucchi", 0) + _single_rows("S", "phantom", 0) + _single_rows("S", "vnc", 0)
    return main + singles + _few_label_rows("S", MAIN_SETS)


def _single_rows(tier: Tier, name: str, seed: int) -> list[Row]:
    """Rows beside the main table."""
    if name == "vnc":
        wanted = [(method, 100) for method in ("none", "memory", "unet3d")]
    else:
        wanted = [("memory-one-direction", 100), ("sam2-slices", 100), ("memory", 25), ("unet3d", 25)]
        wanted += [("unet2d", 100), ("unet2d", 6), ("none-random", 100), ("memory-random", 100)]
        wanted += [("memory-random", 6), ("lora-4", 100), ("lora-16", 100), ("lora-64", 100)]
    return [Row(tier, name, method, percent, seed) for method, percent in wanted]


def _few_label_rows(tier: Tier, names: tuple[str, ...]) -> list[Row]:
    """Rows of a few labelled slices, 2 % and all: three seeds where the spread matters.

    The `spatial` row of a seed comes first: other rows take their labels from it.
    """
    seeded = [("spatial", 2), ("cps", 2), ("memory-half", 2)]
    seeded += [(name, 2) for name in MEMORY_METHODS]
    single = [("spatial-truth", 100), ("memory-half", 100), ("unet3d-half", 100)]
    single += [("spatial-truth", 2), ("unet3d-half", 2), ("unet3d-pseudo", 2), ("spatial", 6)]
    single += [(name, 100) for name in MEMORY_METHODS]
    rows = [Row(tier, name, method, percent, seed) for seed in SEEDS for name in names for method, percent in seeded]
    # Whether the 3D memory needs longer than the main table's minutes where two classes are new to it.
    rows += [Row(tier, "phantom", method, 100, seed) for seed in SEEDS for method in ("none-half", "memory-half")]
    rows += [Row(tier, name, method, percent, 0) for name in names for method, percent in single]
    rows += [Row(tier, names[0], method, 2, 0) for method in FAR_METHODS]
    return list(dict.fromkeys(rows))


def large_tier() -> list[Row]:
    """Rows of tier L: everything with three seeds, Lucchi++ at its own 5 nm."""
    rows = []
    for seed in SEEDS:
        for name in ("lucchi-5nm", "phantom", "vnc"):
            shares = (100,) if name == "vnc" else (100, 25, 6)
            rows += [Row("L", name, method, share, seed) for share in shares for method in MAIN_METHODS]
            rows += [row for row in _single_rows("L", name, seed) if row not in rows]
    return rows + _few_label_rows("L", ("lucchi-5nm", "phantom"))


def pilot_tier() -> list[Row]:
    """Two learning rates of the peer on each main set; meant for `--minutes 2`."""
    return [Row("P", name, method, 100, 0) for name in MAIN_SETS for method in ("unet3d-rate-1", "unet3d-rate-3")]


def rows_of(tier: Tier, only: str | None = None) -> list[Row]:
    """Rows of a tier whose name matches a shell pattern, in the order in which they run."""
    rows = {"S": small_tier, "L": large_tier, "P": pilot_tier}[tier]()
    return [row for row in rows if only is None or fnmatch.fnmatch(row.name, only)]


def row_named(name: str) -> Row:
    """Find a row by its name.

    Raises:
        KeyError: no tier has it.
    """
    return {row.name: row for row in [*small_tier(), *large_tier(), *pilot_tier()]}[name]


def labelled_slices(start: int, stop: int, percent: int) -> tuple[int, ...]:
    """Choose the slices of [start, stop) that carry labels: evenly spread, in the middle of equal parts."""
    depth = stop - start
    count = min(depth, max(1, round(depth * percent / 100)))
    return tuple(start + (2 * index + 1) * depth // (2 * count) for index in range(count))
