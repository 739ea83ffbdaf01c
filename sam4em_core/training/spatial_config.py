"""What a dual-track training is told: what its trainings share, how each differs, and how pseudo-labels are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StrictStr, model_validator

from sam4em_core.training.config import CARRIED, TrainingConfig
from sam4em_core.training.sections import Count, Fraction, Frozen, NaturalNumber

CHAIN_MEMORY = {"source": "logits", "direction": "lower", "include_own": False, "injection": "sigmoid"}
"""SAM2's own memory, which carries masks."""


class SelectionConfig(Frozen):
    """Which pseudo-labels are learnt from. Truth is never overwritten and always used."""

    uncertain: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.1
    """Voxels whose probability is nearer to the threshold than this do not count in the mask track."""
    band_fraction: Fraction = 0.1
    """The sign of the signed distance and the mask may differ this near to the surface, as a fraction of tau."""
    leave_out_first: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.15
    """Share of the unlabelled slices, the worst, that round 1 does not learn from."""
    leave_out_later: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """The same for later rounds."""
    min_speck_nm3: Annotated[float, Field(ge=0.0)] = 1e6
    """Smaller objects of a pseudo-label become background, nm^3."""
    weight_first: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """What a window of pseudo-labels weighs in the mask track of round 1, beside 1 for a window of truth."""
    weight_last: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The same in the last round; it grows evenly in between."""
    truth_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Share of the mask track's windows that are drawn around labelled slices, with truth alone."""
    min_agreement: Fraction = 0.2
    """Dice between the two tracks (round 0: the two directions) below which there is nothing to learn from; of a class
    with less only the truth is learnt."""


class StopConfig(Frozen):
    """When to stop before the last round."""

    min_change: Fraction = 0.005
    """Stop when 1 - Dice between the masks of this round and the one before is less."""
    min_gain: Fraction = 0.001
    """Stop when Dice on the choose slices rose by less."""


class RoundZeroConfig(Frozen):
    """Where the first pseudo-labels come from."""

    start: Literal["best", "propagation", "direct"] = "best"
    """`propagation`: the labelled slices, carried through the volume. `direct`: a network that is trained on
    the labelled slices alone. `best`: whichever scores higher on the choose slices; propagation where there are
    none."""
    drift_slices: Annotated[Count, Field(ge=2)] = 9
    """Slices of a film that is made out of one labelled slice."""
    films_per_slice: Count = 2
    """Films made out of every labelled slice."""


class SpatialConfig(Frozen):
    """A dual-track training, volumes aside.

    `shared` and the parts hold keys of `TrainingConfig`; a part's keys win, and sections are merged key by key. What a
    part cannot be without is not up to it; saying otherwise is an error.
    """

    name: StrictStr
    """Name of the model."""
    shared: dict[str, Any]
    """What all trainings have in common: classes, voxel size, device, seed, model, augment, ..."""
    propagation: dict[str, Any] | None = None
    """Round 0: a network that carries the labelled slices' masks. Absent: round 0 has none."""
    auxiliary: dict[str, Any] | None = None
    """Before that, on the auxiliary volumes, where there are some: differences to `propagation`."""
    direct: dict[str, Any] | None = None
    """Round 0: a network that is trained on the labelled slices alone, with SAM4EM's 3D memory (`model.memory: volume`,
    the default) or without one (`none`). Absent: round 0 has none."""
    sdf: dict[str, Any]
    """SDF track: a U-Net of signed distances, at its own voxel size. In round 1 it starts from its own `base`, where
    one is given here, else from random weights: `shared.base` is no U-Net."""
    masks: dict[str, Any]
    """Mask track: a network around that U-Net. In round 1 it starts from its own `base`, where one is given here that
    knows all classes; of another one only the memory is taken. Everything else, without a `base` the memory too, begins
    with the network of round 0, whose memory is another one."""
    later_sdf: dict[str, Any] = Field(default_factory=dict)
    """From round 2 on: differences to `sdf`."""
    later_masks: dict[str, Any] = Field(default_factory=dict)
    """From round 2 on: differences to `masks`."""
    rounds: Annotated[Count, Field(le=4)] = 3
    """Rounds after round 0, at most."""
    round_zero: RoundZeroConfig = RoundZeroConfig()
    """Where the first pseudo-labels come from."""
    selection: SelectionConfig = SelectionConfig()
    """Which pseudo-labels are learnt from."""
    stop: StopConfig = StopConfig()
    """When to stop early."""
    seed: NaturalNumber = 0
    """Seed of the films."""

    @model_validator(mode="after")
    def _check_fixed(self) -> SpatialConfig:
        for name, fixed in _FIXED.items():
            section = getattr(self, name) or {}
            found = [*contradicted(section, fixed), *(key for key in _GIVEN.get(name, ()) if key in section)]
            if found:
                raise ValueError(f"{name} sets {', '.join(found)}, which follows from what {name} is: leave it out")
        return self

    @model_validator(mode="after")
    def _check_round_zero(self) -> SpatialConfig:
        missing = [name for name in ("propagation", "direct") if getattr(self, name) is None]
        start = self.round_zero.start
        if len(missing) == 2 or start in missing:
            raise ValueError(
                f"round_zero.start is {start}, and there is no section {' and no section '.join(missing)}: say how "
                "that network is trained"
            )
        if self.direct is not None and self.values_of("direct").get("model", {}).get("memory") == "sdf":
            raise ValueError("direct.model.memory is sdf, and round 0 has no U-Net: set volume or none")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the trainings, in the order in which they begin; the later rounds' last."""
        first = [name for name in ("auxiliary", "propagation", "direct") if getattr(self, name) is not None]
        later = ("later_sdf", "later_masks") if self.rounds > 1 else ()
        return (*first, "sdf", "masks", *later)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in channel order."""
        return self.part("masks").classes

    def part(self, name: str, **changes: Any) -> TrainingConfig:
        """Give the training of one part.

        Args:
            name: `propagation`, `auxiliary`, `direct`, `sdf`, `masks`, `later_sdf` or `later_masks`.
            **changes: keys of `TrainingConfig` that win over all layers.

        Raises:
            ValueError: a key is unknown, or a value is out of range.
        """
        return TrainingConfig.model_validate(merged(self.values_of(name), changes))

    def values_of(self, name: str) -> dict[str, Any]:
        """Give the keys of one part with those that it shares, not yet checked."""
        below = {"auxiliary": "propagation", "later_sdf": "sdf", "later_masks": "masks"}.get(name)
        names = [name] if below is None else [below, name]
        values: dict[str, Any] = {"name": f"{self.name}-{name.removeprefix('later_')}"}
        sections = (getattr(self, layer) or {} for layer in names)
        for layer in (self.shared, _NOT_SHARED.get(names[0], {}), *sections, _FIXED[name]):
            values = merged(values, layer)
        return values


_CARRIER: dict[str, Any] = {
    "target": "propagation",
    "model": {"memory": "sdf", "sdf_memory": CHAIN_MEMORY},
    # Class by class, with one network.
    "classes": (CARRIED,),
}

# What a part cannot be without.
_FIXED: dict[str, dict[str, Any]] = {
    "propagation": _CARRIER,
    "auxiliary": _CARRIER,
    "direct": {"target": "masks"},
    "sdf": {"target": "sdf"},
    "later_sdf": {"target": "sdf"},
    "masks": {"target": "masks", "model": {"memory": "sdf"}},
    "later_masks": {"target": "masks", "model": {"memory": "sdf"}},
}

# What the round before, or the other track, gives a part.
_GIVEN: dict[str, tuple[str, ...]] = {
    "later_sdf": ("base",),
    "masks": ("sdf",),
    "later_masks": ("sdf", "base", "memory_base"),
}

# What a part, by its first section, does not take from `shared`.
_NOT_SHARED: dict[str, dict[str, Any]] = {
    "propagation": {"loss": {"per_class": {}}},
    "sdf": {
        "model": {},
        "base": None,
        "memory_base": None,
        "compile": False,
        "gradient_checkpointing": False,
        "augment": {"scale_fraction": 0.0, "elastic_voxels": 0.0},
    },
}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put one section over another, key by key; a list replaces a list, an empty section empties one."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both and value else value
    return result


def contradicted(section: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[str]:
    """Name the keys of a section that have another value than a fixed one; a.b is key b of section a."""
    found = []
    for key in section.keys() & fixed.keys():
        here, there = section[key], fixed[key]
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found += [f"{key}.{inner}" for inner in contradicted(here, there)]
        elif here != there:
            found.append(key)
    return sorted(found)
