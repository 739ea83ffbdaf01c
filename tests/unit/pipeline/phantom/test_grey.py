"""What can be seen inside a phantom: lamellae in mitochondria, vesicles, dense synapses, organelles."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec, grey
from pipeline.phantom.anatomy import Curves, grow_tissue
from pipeline.phantom.field import WARP_LIMIT_NM, Tile, make_tile
from pipeline.phantom.hashing import draw, draw_directions
from pipeline.phantom.organelles import SYNAPSE_REACH_NM, grow_details
from pipeline.phantom.scene import ACTIVE_NM, PSD_NM, Scene

# Without noise and drift; the piece holds two mitochondria and a synapse.
SPEC = PhantomSpec(seed=5, voxel_size_zyx_nm=(8.0, 8.0, 8.0), noise_sigma=0, contrast_drift_fraction=0)
BOX = Box.of_shape((19, 89, 131), (15, 0, 160))


@dataclass(frozen=True)
class Piece:
    tile: Tile
    curves: Curves
    scene: Scene
    grey: npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def piece():
    size = np.array(SPEC.voxel_size_zyx_nm)
    low, high = np.array(BOX.start) * size - WARP_LIMIT_NM, np.array(BOX.stop) * size + WARP_LIMIT_NM
    curves = grow_tissue(SPEC.seed, low, high)
    tile = make_tile(SPEC, BOX, BOX)
    scene = Scene.compose(SPEC, tile, curves, grow_details(SPEC, curves, low, high))
    return Piece(tile, curves, scene, grey.paint(SPEC, scene))


@pytest.fixture
def without(piece, monkeypatch):
    """Paint again with one painter left out; give what it had changed, in grey levels."""

    def call(painter):
        monkeypatch.setattr(grey, painter, lambda *_: None)
        return piece.grey - grey.paint(SPEC, piece.scene)

    return call


def test_cristae_are_lamellae_of_one_direction_and_period(piece):
    """Inside, grey waves along the normal of the lamellae at their period, and at no other one."""
    labels = piece.scene.labels("mitochondria")
    for value in np.unique(labels[labels > 0]):
        core = ndimage.binary_erosion(labels == value, iterations=4, border_value=1)
        assert core.sum() > 1000
        row = int(np.flatnonzero(piece.curves.ids == value)[0])
        normal, period = draw_directions(piece.curves.keys, 17)[row], 36.0 + 30.0 * draw(piece.curves.keys, 20)[row]
        along_nm = sum(piece.tile.tissue_nm[axis][core] * normal[axis] for axis in range(3))
        wave = piece.grey[core] - piece.grey[core].mean()

        def amplitude(period_nm, wave=wave, along_nm=along_nm):
            return abs((wave * np.exp(2j * np.pi * along_nm / period_nm)).mean())

        assert amplitude(period) > 1.5
        assert amplitude(period) > 2.5 * max(amplitude(period * factor) for factor in (0.6, 0.8, 1.25, 1.6))
        assert piece.grey[core].std() > 8.5


def distance_to(piece, row):
    """Distance of every voxel to the middle of a synapse, in nm."""
    middle = piece.scene.details.synapses.middle_nm[row] - piece.tile.center_nm
    return np.sqrt(sum((piece.tile.tissue_nm[axis] - middle[axis]) ** 2 for axis in range(3)))


def test_vesicles_lie_in_a_sender_near_its_synapse(piece, without):
    change = without("paint_vesicles")
    synapses, owner = piece.scene.details.synapses, piece.scene.territory.owner
    seen = np.abs(change) > 5
    assert seen.sum() > 300
    rows = [row for row in range(len(synapses.ids)) if (distance_to(piece, row) < SYNAPSE_REACH_NM).any()]
    allowed = [(owner == synapses.sender[row]) & (distance_to(piece, row) < SYNAPSE_REACH_NM) for row in rows]
    assert np.logical_or.reduce(allowed)[seen].all()
    # Dark membranes around a lighter inside.
    assert change[seen].min() < -30
    assert piece.grey[change < -30].mean() < 115


def test_some_axons_are_full_of_vesicles(piece, without):
    change = without("paint_vesicle_field")
    seen = np.abs(change) > 5
    assert seen.sum() > 300
    owners = np.unique(piece.scene.territory.owner[seen])
    assert (piece.curves.weight_nm[owners].min(axis=1) == 0).all()
    assert (piece.scene.depth_nm[seen] > 0).all()
    assert change[seen].min() < -20


def test_a_synapse_is_dense(piece, without):
    change = without("paint_synapses")
    inside = piece.scene.synapse >= 0
    assert piece.grey[inside].mean() < 100
    assert change[inside].mean() < -15
    (row,) = np.unique(piece.scene.synapse[inside])
    synapses, territory = piece.scene.details.synapses, piece.scene.territory
    dark = (change < -5) & (distance_to(piece, row) < synapses.radius_nm[row])
    # The density reaches deep into the receiver, and a little into the sender.
    depth_nm = [
        territory.border_nm[dark & (territory.owner == side[row])] for side in (synapses.receiver, synapses.sender)
    ]
    assert PSD_NM - 8 < depth_nm[0].max() < PSD_NM + 8
    assert 0 < depth_nm[1].max() < ACTIVE_NM + 6


def test_other_organelles_lie_in_the_cytoplasm(piece, without):
    change = without("paint_organelles")
    seen = np.abs(change) > 5
    assert seen.sum() > 1000
    assert (piece.scene.depth_nm[seen] > 0).all()
    assert not piece.scene.glia()[seen].any()
