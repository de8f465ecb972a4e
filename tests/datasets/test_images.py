from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medzsad.datasets.images import image_size, read_image, read_mask, resize_mask
from medzsad.datasets.samples import Sample
from medzsad.errors import BadInput

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path, pixels, **options):
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def test_grey_and_colour(tmp_path):
    grey = read_image(save(tmp_path / "g.png", GREY))
    assert grey.dtype == np.float32
    assert grey.flags.c_contiguous
    np.testing.assert_array_equal(grey, np.broadcast_to(GREY / np.float32(255), (3, 6, 8)))
    colour = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
    for mode in ("RGB", "RGBA"):
        image = Image.fromarray(colour).convert(mode)
        got = read_image(save(tmp_path / f"{mode}.png", image))
        np.testing.assert_array_equal(got, np.moveaxis(colour, -1, 0) / np.float32(255))


def test_palette_and_one_bit(tmp_path):
    palette = Image.fromarray((GREY > 100).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 51])
    got = read_image(save(tmp_path / "p.png", palette))
    np.testing.assert_allclose(got[:, 5, 7], [1, 0, 0.2])
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), GREY > 100)
    save(tmp_path / "b.png", Image.fromarray(GREY > 100))
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), GREY > 100)


def test_sixteen_bits_fill_the_range(tmp_path):
    deep = GREY.astype(np.uint16) * 10 + 300
    got = read_image(save(tmp_path / "d.png", deep))
    np.testing.assert_allclose(got[0], (deep - 300) / (deep.max() - 300), atol=1e-6)
    flat = read_image(save(tmp_path / "f.png", np.full((4, 4), 700, np.uint16)))
    assert not flat.any()


def test_image_and_mask_are_turned_alike(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    image = read_image(save(tmp_path / "a.png", GREY, exif=turned))
    mask = read_mask(save(tmp_path / "m.png", (GREY > 100).astype(np.uint8) * 255, exif=turned))
    assert image.shape[1:] == mask.shape == image_size(tmp_path / "a.png") == (8, 6)
    np.testing.assert_array_equal(mask, image[0] > 100 / 255)
    np.testing.assert_array_equal(mask, np.rot90(GREY > 100, -1))


@pytest.mark.parametrize(
    ("values", "marked"),
    [
        ([0, 255], [255]),
        ([0, 1], [1]),
        ([0, 1, 2, 7], [1, 2, 7]),  # class numbers
        ([0, 85, 170, 255], [85, 170, 255]),  # classes spread over the range
        ([0, 1, 3, 252, 254, 255], [252, 254, 255]),  # compressed once
        (list(range(0, 256, 15)), [v for v in range(0, 256, 15) if v >= 128]),  # resized once
        ([0], []),
        ([255], [255]),
    ],
)
def test_what_a_mask_marks(tmp_path, values, marked):
    pixels = np.resize(np.array(values, dtype=np.uint8), (7, 9))
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", pixels)), np.isin(pixels, marked))


def test_a_jpeg_mask(tmp_path):
    block = np.zeros((32, 32), dtype=np.uint8)
    block[5:24, 9:21] = 255
    path = save(tmp_path / "m.jpg", block, quality=60)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    np.testing.assert_array_equal(read_mask(path), block > 0)
    assert (np.asarray(Image.open(path))[block == 0] > 0).any()  # "above 0" would have marked more
    assert not read_mask(save(tmp_path / "e.jpg", np.full((16, 16), 3, np.uint8))).any()


def published_mask(path, size):
    """A mask by torchvision, as the published evaluations load and resize it."""
    from torchvision import transforms

    white = Image.fromarray((np.array(Image.open(path).convert("L")) > 0).astype(np.uint8) * 255)
    steps = transforms.Compose(
        [transforms.Resize((size, size)), transforms.CenterCrop(size), transforms.ToTensor()]
    )
    return steps(white)[0].numpy() > 0.5


@pytest.mark.parametrize("kind", ["jpeg", "grey", "classes", "colour", "palette"])
@pytest.mark.parametrize("size", [20, 37, 64])
def test_masks_as_in_the_published_evaluations(tmp_path, kind, size):
    dice = np.random.default_rng(size)
    block = np.zeros((41, 37), dtype=np.uint8)
    block[5:24, 9:21] = 255
    if kind == "jpeg":
        path = save(tmp_path / "m.jpg", block, quality=50)
    elif kind == "colour":  # dark colours round to black or do not
        path = save(tmp_path / "m.png", dice.integers(0, 4, (41, 37, 3), dtype=np.uint8))
    elif kind == "palette":
        image = Image.fromarray((block > 0).astype(np.uint8), mode="P")
        image.putpalette([0, 0, 0, 0, 0, 9])
        path = save(tmp_path / "m.png", image)
    else:
        steps = 60 if kind == "grey" else 1
        path = save(tmp_path / "m.png", (dice.integers(0, 4, block.shape) * steps).astype(np.uint8))
    ours = resize_mask(read_mask(path, "published"), size, "published")
    np.testing.assert_array_equal(ours, published_mask(path, size))
    assert 0 < ours.mean() < 1


def test_the_rules_differ_on_grey_masks(tmp_path):
    block = np.zeros((64, 64), dtype=np.uint8)
    block[10:40, 20:50] = 255
    path = save(tmp_path / "m.jpg", block, quality=50)
    published, half = (resize_mask(read_mask(path, rule), 32, rule).sum() for rule in ("published", "half"))
    assert published > 1.05 * half > 0


def test_normal_images_have_nothing_marked_in_the_published_evaluations(tmp_path):
    image, mask = save(tmp_path / "i.png", GREY), save(tmp_path / "m.jpg", np.full((6, 8), 9, np.uint8))
    for label in (0, 1):
        sample = Sample(image, label, mask, "a", "a", "a")
        assert sample.read_mask("published").all() == bool(label)
        assert not sample.read_mask().any()


def test_the_nearest_pixel_is_the_one_under_the_centre():
    mask = np.array([[True, False, False], [False, False, True]])
    np.testing.assert_array_equal(resize_mask(mask, 6), np.repeat(np.repeat(mask, 3, 0), 2, 1))
    np.testing.assert_array_equal(resize_mask(mask, 1), [[False]])


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_what_cannot_be_read(tmp_path, content):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    for read in (read_image, read_mask, image_size):
        with pytest.raises(BadInput, match=r"x\.png") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_cut_off_image(tmp_path):
    path = save(tmp_path / "x.png", np.random.default_rng(0).integers(0, 255, (60, 60), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(BadInput, match=r"x\.png"):
        read_image(path)
