"""Writes `docs/config.md` from the schema: `python -m pipeline.config.document > docs/config.md`."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any

from annotated_types import BaseMetadata
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.config.clusters import (
    GpusCluster,
    JobGroup,
    KubernetesCluster,
    LocalCluster,
    LsfCluster,
    SchedulerCluster,
    SlurmCluster,
    TlsSection,
)
from pipeline.config.schema import (
    FaultSection,
    ImageSection,
    InstanceRule,
    LoggingSection,
    OutputSection,
    PlanSection,
    PredictionSection,
    PriceSection,
    Sam4emSegmenter,
    StorageSection,
    ThresholdSegmenter,
)
from pipeline.config.shapes import MeshSection, SkeletonSection

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("image", ImageSection),
    ("outputs[]", OutputSection),
    ("segmenter (kind: sam4em)", Sam4emSegmenter),
    ("segmenter (kind: threshold)", ThresholdSegmenter),
    ("classes.NAME", InstanceRule),
    ("predictions", PredictionSection),
    ("plan", PlanSection),
    ("mesh", MeshSection),
    ("skeleton", SkeletonSection),
    ("cluster (kind: local)", LocalCluster),
    ("cluster (kind: gpus)", GpusCluster),
    ("cluster (kind: slurm)", SlurmCluster),
    ("cluster (kind: lsf)", LsfCluster),
    ("cluster.gpu_workers, cluster.cpu_workers (slurm, lsf)", JobGroup),
    ("cluster (kind: kubernetes)", KubernetesCluster),
    ("cluster (kind: scheduler)", SchedulerCluster),
    ("cluster.tls", TlsSection),
    ("faults", FaultSection),
    ("prices", PriceSection),
    ("storage", StorageSection),
    ("logging", LoggingSection),
)
_INTRODUCTION = """# The config of a run

One YAML file is one whole run. Made by `python -m pipeline.config.document`; a test holds it to the schema.
`image`, `outputs`, `segmenter`, `classes`, `predictions` and `plan` decide the result: a resumed run must agree on
them. The other sections only decide how it is carried out. A key that is not listed here is an error. `cluster` may
also be the path of a YAML file that holds the section, relative to the config's folder; examples stand in
`configs/clusters`.
"""


def document_config() -> str:
    """Write every section and key with type, default and meaning, as Markdown."""
    parts = [_INTRODUCTION]
    for title, model in _SECTIONS:
        parts.append(f"\n## {title}\n\n{_first_line(model)}\n\n| key | type | default | meaning |\n|---|---|---|---|\n")
        for name, field in model.model_fields.items():
            default = "required" if field.default is PydanticUndefined else f"`{_default(field.default)}`"
            meaning = (field.description or "").replace("|", "\\|")
            parts.append(f"| `{name}` | {_type_name(field.annotation)} | {default} | {meaning} |\n")
    return "".join(parts)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = [item for item in typing.get_args(annotation) if not _is_constraint(item)]
    if annotation is type(None):
        return "null"
    if origin is typing.Literal:
        return " \\| ".join(str(item) for item in arguments)
    if origin is tuple:
        return "list of " + _type_name(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return " \\| ".join(_type_name(item) for item in arguments)
    if origin is not None and arguments:
        return _type_name(arguments[0])
    return str(getattr(annotation, "__name__", annotation))


def _is_constraint(item: Any) -> bool:
    if isinstance(item, type):
        return False
    return isinstance(item, BaseMetadata) or type(item).__module__.startswith("pydantic") or item is Ellipsis


if __name__ == "__main__":
    sys.stdout.write(document_config())
