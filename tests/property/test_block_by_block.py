"""Master property: block by block + stitch = the whole volume."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from pipeline.geometry import BlockGrid, Box
from pipeline.labels.groups import deal_ids, rank_objects
from pipeline.labels.instances import segment_components
from pipeline.labels.luts import apply_lut, compact_core
from pipeline.labels.merges import MergeKind, MergeRule, accept_edges
from pipeline.labels.overlaps import count_overlaps
from pipeline.labels.resolve import (
    connect_nodes,
    count_offsets,
    keep_objects,
    make_lut,
)
from pipeline.labels.splits import segment_watershed
from pipeline.labels.statistics import empty_table, measure_labels, merge_rows
from pipeline.phantom import PhantomSpec, render


def face_box(grid, index, axis, reach):
    """The slab around the upper face of a block."""
    core = grid.box(index)
    start, stop = list(core.start), list(core.stop)
    start[axis], stop[axis] = core.stop[axis] - reach, core.stop[axis] + reach
    return Box(tuple(start), tuple(stop)).intersection(grid.domain)


def stitch(probability, core, halo, reach, label, rule, seed=None, min_voxels=1):
    """Label per block, match faces, resolve, relabel; all in memory."""
    domain = Box.of_shape(probability.shape)
    grid = BlockGrid(domain, core)
    regions, labels, cores, tables = [], [], [], []
    for index in range(len(grid)):
        region = grid.box(index).grown((halo,) * 3).intersection(domain)
        local = label(np.ascontiguousarray(probability[region.slices]))
        inner = grid.box(index).relative_to(region.start).slices
        lut = compact_core(local, inner)
        regions.append(region)
        labels.append(lut[local])
        cores.append(np.ascontiguousarray(lut[local[inner]]))
        tables.append(
            measure_labels(
                cores[-1], np.ascontiguousarray(probability[grid.box(index).slices]), grid.box(index).start, seed
            )
        )
    offsets = count_offsets(np.array([len(table.voxels) for table in tables]))
    lower, upper = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for index in range(len(grid)):
        for axis in range(3):
            neighbor = grid.upper_neighbor(index, axis)
            if neighbor is None:
                continue
            slab = face_box(grid, index, axis, reach)
            first = labels[index][slab.relative_to(regions[index].start).slices]
            second = labels[neighbor][slab.relative_to(regions[neighbor].start).slices]
            table = count_overlaps(first, second)
            accepted = accept_edges(table, rule).accepted
            lower.append(offsets[index] + table.lower[accepted].astype(np.int64) - 1)
            upper.append(offsets[neighbor] + table.upper[accepted].astype(np.int64) - 1)
    num_objects, objects = connect_nodes(int(offsets[-1]), np.concatenate(lower), np.concatenate(upper))
    totals = empty_table(num_objects)
    for index, table in enumerate(tables):
        merge_rows(totals, objects[offsets[index] : offsets[index + 1]].astype(np.int64), table)
    keep, is_open = keep_objects(totals, min_voxels), np.zeros(num_objects, np.bool_)
    ids = deal_ids(is_open, rank_objects(is_open, keep), 1, np.empty(0, np.uint64))
    out = np.zeros(probability.shape, np.uint64)
    for index in range(len(grid)):
        lut = make_lut(ids, objects[offsets[index] : offsets[index + 1]])
        out[grid.box(index).slices] = apply_lut(cores[index], lut)
    return out, totals


def assert_same_up_to_names(found, expected):
    pairs = np.unique(np.stack([found.ravel(), expected.ravel().astype(np.uint64)]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert not ((pairs[0] == 0) ^ (pairs[1] == 0)).any()


def fill_holes_of_whole(mask, extent):
    """Independent of our own code: scipy, component by component."""
    holes, _ = ndimage.label(~mask, np.ones((3, 3, 3)))
    filled = mask.copy()
    for number, window in enumerate(ndimage.find_objects(holes), 1):
        inside = all(w.start > 0 and w.stop < n for w, n in zip(window, mask.shape, strict=True))
        if inside and all(w.stop - w.start < extent for w in window):
            filled |= holes == number
    return filled


volumes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "shape": st.tuples(*[st.integers(1, 23)] * 3),
        "core": st.tuples(*[st.integers(1, 13)] * 3),
        "density": st.floats(0.05, 0.95),
        "sigma": st.sampled_from([0.0, 0.7, 1.5]),
    }
)


def random_probability(case):
    rng = np.random.default_rng(case["seed"])
    noise = ndimage.gaussian_filter(rng.random(case["shape"]), case["sigma"])
    ranks = noise.ravel().argsort().argsort().reshape(noise.shape)
    # Rank as probability: the share of voxels above the threshold is then the density asked for.
    return np.floor(ranks / ranks.size * 256).astype(np.uint8), max(1, round(256 * (1 - case["density"])) - 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=volumes, halo=st.integers(1, 4))
def test_components_equal_the_whole(case, halo):
    probability, threshold = random_probability(case)
    expected = cc3d.connected_components(probability >= threshold, connectivity=6)
    found, totals = stitch(
        probability, case["core"], halo, 1, lambda p: segment_components(p, threshold), MergeRule(MergeKind.ANY)
    )
    assert_same_up_to_names(found, expected)
    counts = np.bincount(found.ravel().astype(np.int64), minlength=len(totals.voxels) + 1)[1:]
    assert (counts == totals.voxels).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=volumes, extent=st.integers(2, 5))
def test_filled_components_equal_the_whole(case, extent):
    probability, threshold = random_probability(case)
    filled = fill_holes_of_whole(probability >= threshold, extent)
    expected, _ = ndimage.label(filled)
    found, _ = stitch(
        probability,
        case["core"],
        extent,
        1,
        lambda p: segment_components(p, threshold, extent),
        MergeRule(MergeKind.ANY),
    )
    assert_same_up_to_names(found, expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=volumes, min_voxels=st.integers(1, 30), above=st.integers(1, 60))
def test_seeds_and_sizes_are_decided_on_whole_objects(case, min_voxels, above):
    probability, threshold = random_probability(case)
    seed = min(255, threshold + above)
    whole, num = ndimage.label(probability >= threshold)
    for number in range(1, num + 1):
        inside = whole == number
        if inside.sum() < min_voxels or probability[inside].max() < seed:
            whole[inside] = 0
    found, _ = stitch(
        probability,
        case["core"],
        1,
        1,
        lambda p: segment_components(p, threshold),
        MergeRule(MergeKind.ANY),
        seed,
        min_voxels,
    )
    assert_same_up_to_names(found, whole)
    assert sorted(np.unique(found[found > 0])) == list(range(1, len(np.unique(found[found > 0])) + 1))


def touching_blobs(seed, shape=(83, 97, 101), radius=13.0, spacing=23.0, roughness=1.0):
    """Balls on a jittered lattice that touch their neighbors, with a rough surface; truth by nearest center."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(spacing / 2, n, spacing) for n in shape], indexing="ij"), -1)
    centers = grid.reshape(-1, 3) + rng.uniform(-1.5, 1.5, (grid.size // 3, 3))
    voxels = np.indices(shape).reshape(3, -1).T
    distance, nearest = cKDTree(centers).query(voxels)
    bumps = ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    inside = distance.reshape(shape) + roughness * bumps / bumps.std() < radius
    return np.where(inside, 255, 0).astype(np.uint8), np.where(inside, nearest.reshape(shape) + 1, 0)


def variation_of_information(found, truth):
    inside = (found > 0) | (truth > 0)
    joint = np.unique(
        np.stack([found[inside].astype(np.int64), truth[inside].astype(np.int64)]), axis=1, return_counts=True
    )
    (a, b), n = joint
    p = n / n.sum()
    pa, pb = np.bincount(a, p), np.bincount(b, p)
    return float(-(p * np.log2(p / pa[a])).sum() - (p * np.log2(p / pb[b])).sum())


TWO_CUTS = [(83, 97, 53), (41, 53, 59)]


def label_by_watershed(probability):
    return segment_watershed(probability, 128, (8.0, 8.0, 8.0), 100.0)


@pytest.mark.parametrize(
    ("seed", "cuts"),
    [
        (3, TWO_CUTS),
        pytest.param(2, [*TWO_CUTS, (37, 37, 37)], marks=pytest.mark.slow),
        pytest.param(3, [(64, 64, 64), (37, 37, 37)], marks=pytest.mark.slow),
    ],
)
def test_watershed_is_nearly_the_whole(seed, cuts):
    """64 balls a volume: one neck that is cut in one block and not in the other costs 0.03 in that cut."""
    probability, truth = touching_blobs(seed)
    whole = label_by_watershed(probability)
    assert len(np.unique(whole)) < 1.1 * len(np.unique(truth))
    assert whole.max() > 4 * cc3d.connected_components(probability, connectivity=6).max()
    distances = [
        variation_of_information(
            stitch(probability, core, 24, 12, label_by_watershed, MergeRule(MergeKind.IOU, 0.5))[0], whole
        )
        for core in cuts
    ]
    assert np.mean(distances) <= 0.02


def test_watershed_of_a_phantom_is_the_whole():
    """Mitochondria as tissue has them, not balls."""
    spec = PhantomSpec(shape_zyx=(83, 173, 179), voxel_size_zyx_nm=(8.0, 8.0, 8.0), seed=6)
    probability = np.where(render(spec, spec.box, ("mitochondria",)).mitochondria_zyx > 0, 255, 0).astype(np.uint8)
    whole = label_by_watershed(probability)
    assert whole.max() >= 3
    found, _ = stitch(probability, (41, 87, 59), 24, 12, label_by_watershed, MergeRule(MergeKind.IOU, 0.5))
    assert abs(variation_of_information(found, whole)) <= 0.02


def test_any_shared_voxel_would_undo_the_watershed():
    probability, _ = touching_blobs(2)
    found, _ = stitch(probability, (41, 53, 59), 12, 12, label_by_watershed, MergeRule(MergeKind.ANY))
    assert variation_of_information(found, label_by_watershed(probability)) > 0.1
