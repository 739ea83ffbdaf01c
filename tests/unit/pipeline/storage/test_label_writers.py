"""The door to both writers."""

import subprocess
import sys

from pipeline.storage import LabelVolumeSpec, OmeZarrLabels, label_writer


def test_formats(tmp_path):
    spec = LabelVolumeSpec(str(tmp_path), (5, 7, 11), (9.0, 9.0, 9.0), (2, 3, 5))
    assert isinstance(label_writer("ome-zarr", spec), OmeZarrLabels)
    assert type(label_writer("precomputed", spec)).__name__ == "PrecomputedSegmentation"


def test_cloud_volume_is_not_imported_until_it_is_needed():
    code = "import sys, pipeline.storage; sys.exit('cloudvolume' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
