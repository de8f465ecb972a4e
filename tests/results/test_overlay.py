from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medzsad.results import overlay
from medzsad.results.montage import OUTLINE, Montage, blend
from medzsad.results.overlay import Layout, render_overlay, save_overlay, scale_bar
from medzsad.results.prediction import ScanPrediction, SliceScore
from medzsad.scans.intensity import intensity_scaling
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.slices import STACK_AXIS, CanonicalView, Plane

PLANES = (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)


def make_result(
    voxels: np.ndarray,
    anomaly_map: np.ndarray | None = None,
    *,
    axcodes: str = "RAS",
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0),
    planes: tuple[Plane, ...] = (Plane.AXIAL,),
    scores: dict[int, float] | None = None,
    **scan_fields,
) -> ScanPrediction:
    """A prediction from canonical arrays, stored as ``axcodes``; a slice scores the maximum of its map."""
    anomaly_map = np.zeros(voxels.shape[:3], np.float32) if anomaly_map is None else anomaly_map
    orientation = nibabel.orientations.axcodes2ornt(axcodes)
    to_native = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), orientation)
    affine = np.diag([*spacing, 1.0]) @ nibabel.orientations.inv_ornt_aff(to_native, voxels.shape[:3])
    stored, stored_map = (
        nibabel.orientations.apply_orientation(array, to_native) for array in (voxels, anomaly_map)
    )
    fields = {"modality": Modality.MR, "modality_source": "given", "name": "scan", "source": Path("scan.nii")}
    scan = Scan(stored.astype(np.float32), affine, **(fields | scan_fields))
    view = CanonicalView.of(scan)
    slice_scores = []
    for plane in planes:
        for canonical in range(view.shape[STACK_AXIS[plane]]):
            axis, index = view.native_index(STACK_AXIS[plane], canonical)
            score = float(anomaly_map.take(canonical, axis=STACK_AXIS[plane]).max())
            score = score if scores is None else scores.get(canonical, 0.0)
            slice_scores.append(SliceScore(plane, axis, index, 2.0 * canonical, score, score))
    return ScanPrediction(
        scan,
        stored_map.astype(np.float32),
        max(score.score for score in slice_scores),
        slice_scores,
        threshold=0.5,
        threshold_rule="0.5",
        planes=planes,
        scaling=intensity_scaling(scan, window=None if scan.is_colour else "150,300"),
        settings={"model": "test-detector"},
    )


def body(shape: tuple[int, int, int] = (40, 44, 36)) -> np.ndarray:
    """A grey box with a little texture in a black surrounding."""
    voxels = np.zeros(shape, np.float32)
    inside = tuple(slice(4, size - 4) if size > 8 else slice(None) for size in shape)
    voxels[inside] = 100 + np.random.default_rng(0).normal(0, 2, voxels[inside].shape)
    return voxels


def spot(shape: tuple[int, int, int], *places: tuple[int, int, int], value: float = 0.9, half: int = 2):
    anomaly_map = np.zeros(shape, np.float32)
    for x, y, z in places:
        anomaly_map[x - half : x + half + 1, y - half : y + half + 1, max(0, z - half) : z + half + 1] = value
    return anomaly_map


@pytest.fixture
def written(monkeypatch) -> list[tuple[str, tuple[float, float]]]:
    """The texts that are drawn, and where."""
    texts = []
    draw = overlay._Page.text

    def record(self, at, text, **style):
        texts.append((text, at))
        draw(self, at, text, **style)

    monkeypatch.setattr(overlay._Page, "text", record)
    return texts


def all_words(written) -> str:
    return "\n".join(text for text, _ in written)


def is_outline(picture: np.ndarray) -> np.ndarray:
    return (picture == OUTLINE).all(axis=-1)


class TestOrientation:
    @pytest.mark.parametrize("axcodes", ["RAS", "LPS", "LAS", "PIR", "SRA"])
    @pytest.mark.parametrize("plane", PLANES)
    def test_anatomy_is_where_the_letters_say(self, axcodes, plane, written):
        voxels = body()
        voxels[30:34, 33:37, 26:30] = 300  # right, anterior, superior
        result = make_result(voxels, (voxels > 200).astype(np.float32), axcodes=axcodes, planes=(plane,))
        page = render_overlay(result, slices=1)
        letters = dict(written)
        middle = np.mean([letters[letter] for letter in overlay.EDGES[plane]], axis=0)
        # The letters of the right-hand tile were drawn last; the outline is only there.
        rows, columns = np.nonzero(is_outline(page[overlay.HEADER :]))
        offset = np.array([columns.mean(), rows.mean() + overlay.HEADER]) - middle
        for letter in set(overlay.EDGES[plane]) & set("RAS"):
            assert np.dot(offset, np.array(letters[letter]) - middle) > 0, letter

    def test_patient_right_is_on_the_left(self, written):
        voxels = body()
        voxels[30:34, 20:24, 16:20] = 300
        anomaly_map = (voxels > 200).astype(np.float32)
        for axcodes in ("RAS", "LPS"):
            montage = Montage(make_result(voxels, anomaly_map, axcodes=axcodes), 1)
            plain, _ = montage.pictures(montage.shown[0], (300, 300))
            columns = np.nonzero(plain[..., 0] > 170)[1]
            assert columns.size > 50
            assert columns.max() < 150

    def test_all_storage_orders_give_one_picture(self):
        voxels, anomaly_map = body(), spot((40, 44, 36), (30, 30, 20))
        pictures = []
        for axcodes in ("RAS", "LPS", "SRA"):
            montage = Montage(make_result(voxels, anomaly_map, axcodes=axcodes), 1)
            pictures.append(montage.pictures(montage.shown[0], (300, 300)))
        assert np.array_equal(pictures[0], pictures[1])
        assert np.array_equal(pictures[0], pictures[2])

    def test_slice_numbers_are_native(self, written):
        render_overlay(make_result(body(), spot((40, 44, 36), (30, 30, 20), half=0), axcodes="SLP"), slices=1)
        assert "axial  i = 20  \N{MIDDLE DOT}  S 40.0 mm" in all_words(written)
        written.clear()
        render_overlay(make_result(body(), spot((40, 44, 36), (30, 30, 20), half=0), axcodes="RAI"), slices=1)
        assert "axial  k = 15  " in all_words(written)


class TestChoice:
    def test_neighbours_do_not_crowd_out_other_places(self):
        z = np.arange(60)
        scores = np.exp(-(((z - 20) / 6) ** 2)) + 0.3 * np.exp(-(((z - 48) / 3) ** 2))
        shown = Montage(make_result(body((40, 40, 60)), scores=dict(enumerate(scores.tolist()))), 6).shown
        indices = sorted(piece.index for piece in shown)
        assert shown[0].index == 20
        assert len(indices) == 6
        assert min(np.diff(indices)) >= 5
        assert 48 in indices

    def test_every_top_lesion_is_shown(self):
        shape = (40, 40, 60)
        anomaly_map = np.maximum(spot(shape, (20, 20, 30), half=6), spot(shape, (10, 10, 50), value=0.6))
        # The slices of the small lesion do not score at all.
        result = make_result(body(shape), anomaly_map, scores={z: 1.0 for z in range(24, 37)})
        shown = Montage(result, 3).shown
        assert len(result.lesions) == 2
        assert {number for piece in shown for number in piece.lesions} == {1, 2}
        assert sorted(shown, key=lambda piece: -piece.score) == shown

    def test_three_planes_share_the_places(self):
        shape = (40, 44, 36)
        places = [(10, 10, 8), (30, 32, 28), (10, 32, 18)]
        result = make_result(body(shape), spot(shape, *places), planes=PLANES)
        montage = Montage(result, 6)
        assert [piece.plane for piece in montage.shown] == [plane for plane in PLANES for _ in range(2)]
        assert {number for piece in montage.shown for number in piece.lesions} == {1, 2, 3}

    def test_lesions_are_numbered_as_they_are_listed(self):
        shape = (40, 44, 36)
        anomaly_map = np.maximum(spot(shape, (10, 10, 8)), spot(shape, (30, 32, 28), half=4))
        result = make_result(body(shape), anomaly_map, axcodes="PIR")
        ranks = Montage(result, 6).ranks
        for number, lesion in enumerate(result.lesions, start=1):
            assert np.count_nonzero(ranks == number) == lesion.voxels
            assert ranks[lesion.center_voxel] == number

    @pytest.mark.parametrize("slices", [1, 2, 7])
    def test_volumes_of_few_slices(self, slices):
        voxels = body((40, 40, 2))
        assert len(Montage(make_result(voxels, planes=(Plane.AXIAL,)), slices).shown) == min(slices, 2)
        assert render_overlay(make_result(voxels[:, :, :1]), slices=slices).dtype == np.uint8


class TestPictures:
    def test_a_map_of_zeros_does_not_tint(self):
        montage = Montage(make_result(body(), planes=PLANES), 3)
        for piece in montage.shown:
            plain, overlaid = montage.pictures(piece, (310, 290))
            assert plain.shape == (290, 310, 3)
            assert np.array_equal(plain, overlaid)

    def test_the_map_takes_over_gradually(self):
        base = np.full((1, 11, 3), 0.4, np.float32)
        change = np.abs(blend(base, np.linspace(0, 1, 11, dtype=np.float32)[None]) - base).max(axis=-1)[0]
        assert change[0] == 0
        assert (np.diff(change) > -0.02).all()
        assert 0.2 < change[-1] < 0.6

    def test_the_outline_follows_the_mask(self):
        shape = (40, 44, 36)
        montage = Montage(make_result(body(shape), spot(shape, (30, 30, 20), half=4)), 1)
        width, height = 380, 400
        outlined = is_outline(montage.pictures(montage.shown[0], (width, height))[1])
        rows, columns = np.nonzero(outlined)
        scale = width / (montage.box[0].stop - montage.box[0].start)
        assert np.ptp(columns) == pytest.approx(9 * scale, abs=4)
        assert not outlined[int(rows.mean()), int(columns.mean())]
        low = make_result(body(shape), spot(shape, (30, 30, 20), value=0.4))
        assert not is_outline(render_overlay(low)[overlay.HEADER :]).any()

    def test_a_single_voxel_of_the_mask_leaves_a_trace_in_a_smaller_picture(self):
        anomaly_map = spot((900, 900, 1), (433, 611, 0), half=0)
        result = make_result(body((900, 900, 1)), anomaly_map, is_2d=True)
        montage = Montage(result, 1)
        assert is_outline(montage.pictures(montage.shown[0], (301, 301))[1]).any()

    def test_spacing_gives_the_aspect(self):
        voxels = body((60, 60, 16))
        voxels[20:40, 20:40, 6:10] = 300  # 20 mm in each direction
        result = make_result(voxels, spacing=(1.0, 1.0, 5.0), planes=(Plane.CORONAL, Plane.SAGITTAL))
        montage = Montage(result, 2)
        for piece in montage.shown:
            piece = dataclasses.replace(piece, canonical_index=30)
            width_mm, height_mm = montage.size_mm(piece.plane)
            size = (round(4 * width_mm), round(4 * height_mm))
            rows, columns = np.nonzero(montage.pictures(piece, size)[0][..., 0] > 170)
            assert np.ptp(columns) + 1 == pytest.approx(80, abs=4)
            assert np.ptp(rows) + 1 == pytest.approx(80, abs=10)

    def test_the_first_window_of_several_is_shown(self):
        result = make_result(body() * 0.4, modality=Modality.CT)
        montage = Montage(result, 1)
        pictures = []
        for window in ("brain", "brain+bone"):
            result.scaling = intensity_scaling(result.scan, window=window)
            pictures.append(montage.pictures(montage.shown[0], (300, 300))[0])
        assert np.array_equal(*pictures)
        assert np.ptp(pictures[0].astype(int), axis=-1).max() == 0

    def test_the_box_is_the_foreground_with_a_margin(self):
        voxels = np.zeros((60, 60, 60), np.float32)
        voxels[20:40, 20:40, 20:40] = body((28, 28, 28))[4:24, 4:24, 4:24]
        for edge in Montage(make_result(voxels), 1).box:
            assert 14 <= edge.start < 20
            assert 40 < edge.stop <= 46


class TestPage:
    def test_is_the_same_every_time(self):
        first, second = (render_overlay(make_result(body(), spot((40, 44, 36), (30, 30, 20)))) for _ in "12")
        assert first.dtype == np.uint8
        assert first.shape[2] == 3
        assert 1200 <= first.shape[1] <= 1600
        assert np.array_equal(first, second)

    def test_says_what_a_reader_needs(self, written):
        result = make_result(body(), spot((40, 44, 36), (30, 30, 20)), name="head" * 40)
        result.threshold, result.threshold_rule = 0.8125, "p99.5"
        render_overlay(result)
        words = all_words(written)
        for phrase in (
            "volume score 0.90", "threshold 0.81 (p99.5)", "1 lesion candidate", "detector test-detector",
            "anomaly score", "Research use only - not for diagnosis", "patient right is on the left",
            "score 0.90  \N{MIDDLE DOT}  candidate 1",
        ):  # fmt: skip
            assert phrase in words
        assert "nothing above" not in words

    def test_nothing_above_the_threshold(self, written):
        render_overlay(make_result(body(), spot((40, 44, 36), (30, 30, 20), value=0.3)))
        assert "nothing above the threshold: these are the most anomalous slices" in all_words(written)
        assert "0 lesion candidates" in all_words(written)

    @pytest.mark.parametrize("planes", [(Plane.AXIAL,), PLANES])
    def test_no_scored_slices(self, planes, written):
        result = make_result(np.zeros((12, 12, 12), np.float32) + np.arange(12), planes=planes)
        result.slice_scores = []
        page = render_overlay(result)
        assert page.shape[0] > 300
        assert "no slice was scored" in all_words(written)
        assert all_words(written).count("not scored") == len(planes)

    def test_images_without_geometry(self, written, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (50, 30, 1, 3)).astype(np.float32)
        pixels[..., 0] = 250
        result = make_result(
            pixels, spot((50, 30, 1), (20, 20, 0)), is_2d=True, has_geometry=False, modality=Modality.RGB
        )
        save_overlay(result, tmp_path / "picture.tmp")
        page = np.asarray(Image.open(tmp_path / "picture.tmp"))
        assert Image.open(tmp_path / "picture.tmp").format == "PNG"
        words = all_words(written)
        assert "image score" in words
        assert " mm" not in words
        assert " cm" not in words
        assert not {"R", "L", "A", "P"} & {text for text, _ in written}
        left_tile = page[overlay.HEADER + overlay.CAPTION + 40 : -80, 100:700]
        assert left_tile[..., 0].mean() > left_tile[..., 1].mean() + 50

    def test_an_elided_name_fits(self):
        font = overlay._font(20, True)
        short = overlay._elided("a" * 100 + "_tail", font, 400)
        assert font.getlength(short) <= 400
        assert short.startswith("aaa")
        assert short.endswith("_tail")


class TestScaleBar:
    @pytest.mark.parametrize(
        ("px_per_mm", "max_px", "expected"),
        [
            (2, 110, (50, 100, "5 cm")),
            (10, 110, (10, 100, "1 cm")),
            (1.5, 14, (5, 8, "5 mm")),
            (0.5, 110, (200, 100, "20 cm")),
        ],
    )
    def test_is_round_and_fits(self, px_per_mm, max_px, expected):
        assert scale_bar(px_per_mm, max_px) == expected

    def test_measures_what_it_says(self, written):
        voxels = body((60, 60, 30))
        voxels[25:35, 25:35] = 300  # 20 mm wide
        result = make_result(voxels, scores={15: 0.2})
        page = render_overlay(result, slices=1).astype(int)
        labels = [(text, at) for text, at in written if text.endswith(" cm")]
        assert {text for text, _ in labels} == {"2 cm"}
        x, y = labels[0][1]
        around = page[int(y) + 1 : int(y) + 12, int(x) - 200 : int(x) + 200]
        bar = int((around == overlay.TEXT).all(axis=-1).sum(axis=1).max())
        tile = page[overlay.HEADER + overlay.CAPTION :, : page.shape[1] // 2, 2]
        square = int((tile[200:-200] > 170).sum(axis=1).max())
        assert bar == pytest.approx(square, abs=3)


class TestLayout:
    @pytest.mark.parametrize(
        "groups",
        [
            {Plane.AXIAL: (6, 170.0, 210.0)},
            {Plane.SAGITTAL: (6, 60.0, 400.0)},
            {Plane.AXIAL: (1, 0.2, 0.2)},
            {Plane.AXIAL: (40, 400.0, 300.0)},
            {Plane.AXIAL: (2, 360, 300), Plane.CORONAL: (2, 360, 900), Plane.SAGITTAL: (1, 300, 900)},
        ],
    )
    def test_pairs_neither_overlap_nor_leave_the_page(self, groups):
        layout = Layout.of(groups)
        assert layout.width <= overlay.WIDTH
        planes = [plane for plane, (count, _, _) in groups.items() for _ in range(count)]
        boxes = []
        for plane, (left, top) in zip(planes, layout.corners, strict=True):
            width, height = layout.tile_size(plane)
            assert width <= layout.cell
            assert max(width, height) >= 200
            boxes.append((left, top - overlay.CAPTION, left + 2 * layout.cell + 2, top + height))
        for i, (left, top, right, bottom) in enumerate(boxes):
            assert left >= 0
            assert top >= overlay.HEADER
            assert right <= layout.width
            assert bottom <= layout.height - overlay.FOOTER
            for other in boxes[:i]:
                assert left >= other[2] or other[0] >= right or top >= other[3] or other[1] >= bottom

    def test_tiles_of_a_usual_head_are_large(self):
        layout = Layout.of({Plane.AXIAL: (6, 170.0, 210.0)})
        assert min(layout.tile_size(Plane.AXIAL)) >= 300
