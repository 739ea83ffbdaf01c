from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError, WorldError
from pipeline.geometry.box import Box
from pipeline.viewer.colors import color_of
from pipeline.viewer.overview import CAPTION_PIXELS, GAP_PIXELS, SLICE_PIXELS, draw_overview, overlay
from pipeline.viewer.reader import BoxReader

VOXEL = (40.0, 8.0, 8.0)


def labels_array(shape: tuple[int, int, int] = (13, 61, 83)) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint64)
    labels[:, : shape[1] // 2, : shape[2] // 2] = 2**40 + 3
    return labels


def image_array(shape: tuple[int, int, int] = (13, 61, 83)) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 255, shape).astype(np.uint8)


def draw(path: Path, image: BoxReader, labels: BoxReader) -> np.ndarray:
    return np.asarray(Image.open(draw_overview(image, labels, path)))


def test_the_picture_has_true_proportions(tmp_path: Path) -> None:
    picture = draw(
        tmp_path / "overview.png",
        BoxReader.of_array(image_array(), VOXEL),
        BoxReader.of_array(labels_array(), VOXEL),
    )
    rows = [round(extent / (83 * 8) * SLICE_PIXELS) for extent in (61 * 8, 13 * 40, 13 * 40)]
    assert picture.shape == (sum(rows) + 3 * CAPTION_PIXELS + 4 * GAP_PIXELS, 2 * SLICE_PIXELS + 3 * GAP_PIXELS, 3)


def test_labels_lie_on_the_right_half_only_and_in_their_place(tmp_path: Path) -> None:
    labels = labels_array()
    image = BoxReader.of_array(np.full(labels.shape, 9, np.uint8), VOXEL)
    picture = draw(tmp_path / "overview.png", image, BoxReader.of_array(labels, VOXEL))
    top = GAP_PIXELS + CAPTION_PIXELS
    height = round(61 * 8 / (83 * 8) * SLICE_PIXELS)
    left = picture[top : top + height, GAP_PIXELS : GAP_PIXELS + SLICE_PIXELS]
    right = picture[top : top + height, 2 * GAP_PIXELS + SLICE_PIXELS : 2 * GAP_PIXELS + 2 * SLICE_PIXELS]
    assert np.ptp(left, axis=-1).max() == 0
    colored = np.ptp(right, axis=-1) > 0
    assert colored[: height // 2 - 8, : SLICE_PIXELS // 2 - 8].all()
    assert not colored[height // 2 + 8 :].any()
    assert not colored[:, SLICE_PIXELS // 2 + 8 :].any()


def test_labels_of_a_part_at_another_voxel_size_meet_the_image(tmp_path: Path) -> None:
    image = np.zeros((13, 60, 80), dtype=np.uint8)
    image[4:, 20:, 40:] = 200
    labels = np.ones((9, 20, 20), dtype=np.uint32)  # from voxel (4, 20, 40) of the image on, at 16 nm in y and x
    reader = BoxReader.of_array(labels, (40.0, 16.0, 16.0), (4 * 40.0, 20 * 8.0, 40 * 8.0))
    whole = draw(tmp_path / "a.png", BoxReader.of_array(image, VOXEL), reader)
    block = whole[GAP_PIXELS + CAPTION_PIXELS :, GAP_PIXELS : GAP_PIXELS + 560][:560]  # 320 of 360 nm
    assert len(np.unique(block)) == 1


def test_only_three_slices_are_read_and_a_window_of_a_huge_volume(tmp_path: Path) -> None:
    read: list[Box] = []

    def record(box: Box) -> np.ndarray:
        read.append(box)
        return np.zeros(box.shape, dtype=np.uint8)

    reader = BoxReader(record, (30_000, 200_000, 200_000), np.dtype(np.uint8), (30.0, 8.0, 8.0))
    draw_overview(reader, reader, tmp_path / "overview.png")
    assert len(read) == 6
    assert all(min(box.shape) == 1 and max(box.shape) <= 2048 for box in read)
    assert read[0].start[0] == 15_000


def test_an_image_that_does_not_reach_the_labels_is_black(tmp_path: Path) -> None:
    labels = BoxReader.of_array(labels_array(), VOXEL, (1e6, 0.0, 0.0))
    picture = draw(tmp_path / "overview.png", BoxReader.of_array(image_array(), VOXEL), labels)
    top = GAP_PIXELS + CAPTION_PIXELS
    assert not picture[top : top + 300, GAP_PIXELS : GAP_PIXELS + SLICE_PIXELS].any()


def test_the_overlay_outlines_in_full_color_and_leaves_the_background() -> None:
    picture = np.full((5, 7, 3), 100, dtype=np.uint8)
    ids = np.zeros((5, 7), dtype=np.uint64)
    ids[1:4, 1:6] = 7
    color = color_of(np.array(7, dtype=np.uint64))
    mixed = overlay(picture, ids)
    assert (mixed[ids == 0] == 100).all()
    assert (mixed[1, 1] == color).all()
    assert (mixed[2, 3] == np.rint(0.55 * 100 + 0.45 * color)).all()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    image = BoxReader.of_array(image_array(), VOXEL)
    with pytest.raises(UserError, match="float32"):
        draw_overview(image, BoxReader.of_array(np.ones((2, 3, 5), np.float32), VOXEL), tmp_path / "a.png")
    with pytest.raises(WorldError, match="writing the overview"):
        draw_overview(image, BoxReader.of_array(labels_array(), VOXEL), tmp_path / "missing" / "a.png")
