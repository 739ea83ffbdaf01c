"""A run whose stages write bytes into a dictionary: every part of the driver without Dask or disks."""

import threading
import zlib
from dataclasses import dataclass, field

import pytest

from pipeline.errors import CorruptData, VolumeNotFound
from pipeline.ledger import RunManifest, UnitSum
from pipeline.run.completion import TaskResult
from pipeline.run.driver import Run, drive
from pipeline.run.serial import SerialExecutor
from pipeline.run.stream import StageSpec, Task
from pipeline.telemetry import SilentReporter


class MemoryObjects:
    """A store in memory."""

    def __init__(self):
        self.objects = {}
        self._lock = threading.Lock()

    def get(self, key):
        try:
            return self.objects[key]
        except KeyError:
            raise VolumeNotFound(key) from None

    def put(self, key, data):
        self.objects[key] = bytes(data)

    def put_if_absent(self, key, data):
        with self._lock:
            return self.objects.setdefault(key, data) is data

    def exists(self, key):
        return key in self.objects

    def delete(self, key):
        self.objects.pop(key, None)


@dataclass
class FakeRun:
    """Label -> resolve -> relabel -> pyramid over `num_blocks`; is its own stage set, room and places."""

    num_blocks: int = 13
    store: MemoryObjects = field(default_factory=MemoryObjects)
    volumes: dict = field(default_factory=dict)
    order: list = field(default_factory=list)
    failures: dict = field(default_factory=dict)
    marks: list = field(default_factory=list)
    deleted: list = field(default_factory=list)
    remarks: dict = field(default_factory=dict)
    num_opened: int = 0

    def specs(self):
        coarse = -(-self.num_blocks // 2)
        return [
            StageSpec("label", self.num_blocks),
            StageSpec("resolve", 1, after=("label",)),
            StageSpec("relabel", self.num_blocks, after=("resolve",)),
            StageSpec("pyramid", coarse, self._pyramid_needs),
        ]

    def _pyramid_needs(self, index):
        both = (2 * index, 2 * index + 1)
        return [Task("relabel", child) for child in both if child < self.num_blocks]

    def create(self):
        self.volumes.setdefault("out", {})

    def open(self):
        self.num_opened += 1
        return self

    def close(self):
        pass

    def run(self, task):
        self.order.append(task)
        errors = self.failures.get(task, [])
        if errors:
            raise errors.pop(0)
        if task.stage not in {"relabel", "pyramid"}:
            remark = self.remarks.get(task)
            return TaskResult(is_empty=task.index % 5 == 1, seconds={"model_s": 0.01}, remark=remark)
        name = "out/0" if task.stage == "relabel" else "out/1"
        data = str(task).encode()
        self.volumes.setdefault(name, {})[task.index] = data
        return TaskResult(units=(UnitSum(name, (0, 0, task.index), zlib.crc32(data)),))

    def num_units(self):
        return {"out/0": self.num_blocks, "out/1": -(-self.num_blocks // 2)}

    def check_unit(self, unit):
        data = self.volumes.get(unit.volume, {}).get(unit.position[2])
        if data is None or zlib.crc32(data) != unit.crc32c:
            raise CorruptData(f"{unit.volume} {unit.position} is damaged")

    def mark(self, *, complete):
        self.marks.append(complete)

    def delete_outputs(self, outputs):
        self.deleted += [output["url"] for output in outputs]
        self.volumes.clear()

    def delete_intermediates(self):
        self.deleted.append("scratch")

    def manifest(self, **changes):
        fields = {
            "config": {"plan": {"block_zyx": [7, 11, 13]}},
            "segmenter": {"weights_sha256": "aa"},
            "image": {"url": "em.zarr"},
            "grids": {},
            "num_tasks": {spec.name: spec.num_tasks for spec in self.specs()},
            "grey_range": None,
            "result_version": 1,
            "outputs": ({"url": "out", "kind": "volume"},),
        }
        return RunManifest(**{**fields, **changes})

    def drive(self, manifest=None, retries=2, max_failed_tasks=100, **options):
        run = Run(
            self.store,
            manifest or self.manifest(),
            self,
            self,
            retries,
            max_failed_tasks,
            {"cluster": {"workers": 2}},
        )
        return drive(run, lambda: SerialExecutor(self), reporter=SilentReporter(), **options)


@pytest.fixture
def fake():
    return FakeRun()
