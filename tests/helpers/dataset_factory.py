"""Writes tiny copies of the published data sets' folders, and says what a reader must find in them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

SIZE = (12, 8)  # width, height
Row = tuple[str, int, str | None, str, str]  # id, label, mask below the same root, class, kind


def picture(path: Path, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Path:
    """An image whose content depends on its name, so that no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(zlib.crc32(path.as_posix().encode()))
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    Image.fromarray(dice.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def mask(path: Path, marked: bool = True, size: tuple[int, int] = SIZE, value: int = 255) -> Path:
    """A mask with a block of 2 x 3 pixels, or an empty one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    if marked:
        pixels[1:3, 2:5] = value
    Image.fromarray(pixels).save(path)
    return path


def volume(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def scan_volume(path: Path, channels: int = 0) -> Path:
    dice = np.random.default_rng(zlib.crc32(path.as_posix().encode()))
    shape = (5, 6, 4) if not channels else (5, 6, 4, channels)
    return volume(path, dice.normal(size=shape).astype(np.float32))


def label_volume(path: Path, value: int = 1) -> Path:
    values = np.zeros((5, 6, 4), dtype=np.uint8)
    values[2, 3, 1:3] = value
    return volume(path, values)


def mvtec_style(
    root: Path,
    classes: tuple[str, ...],
    *,
    good: str = "good",
    defects: tuple[str, ...] = ("scratch", "hole"),
    suffix: str = ".png",
    mask_end: str = "_mask.png",
    as_class: str | None = None,
) -> list[Row]:
    """``{class}/test/...``; defects come in natural order, like their folders."""
    rows: list[Row] = []
    for name in classes:
        picture(root / name / "train" / good / f"900{suffix}")
        folders = sorted((good, *defects))
        for folder in folders:
            for stem in ("002", "010"):
                image = picture(root / name / "test" / folder / f"{stem}{suffix}")
                truth = None
                if folder != good:
                    truth = mask(root / name / "ground_truth" / folder / f"{stem}{mask_end}")
                rows.append(
                    (
                        image.relative_to(root).as_posix(),
                        int(folder != good),
                        truth and truth.relative_to(root).as_posix(),
                        as_class or name,
                        "good" if folder == good else folder,
                    )
                )
    return rows


def images_masks(
    root: Path, class_name: str, images: str = "images", masks: str = "masks", **names: str
) -> list[Row]:
    """Two images with marks, and one whose mask is empty."""
    suffix, mask_end = names.get("suffix", ".jpg"), names.get("mask_end", ".png")
    rows: list[Row] = []
    for stem, marked in (("1", True), ("2", False), ("10", True)):
        image = picture(root / images / f"{stem}{suffix}")
        truth = mask(root / masks / f"{stem}{mask_end}", marked)
        rows.append(
            (
                image.relative_to(root).as_posix(),
                int(marked),
                truth.relative_to(root).as_posix(),
                class_name,
                "anomaly" if marked else "good",
            )
        )
    return rows


def yes_no(root: Path, class_name: str) -> list[Row]:
    rows: list[Row] = []
    for folder, stems in (("yes", ("Y1", "Y2", "Y10")), ("no", ("1 no", "N2"))):
        for stem in stems:
            image = picture(root / folder / f"{stem}.JPG", mode="L")
            label = int(folder == "yes")
            kind = "yes" if label else "good"
            rows.append((image.relative_to(root).as_posix(), label, None, class_name, kind))
    return rows


def meta_json(root: Path, class_name: str, prefix: str = "") -> list[Row]:
    """As the published scripts write it; ``prefix`` goes before every path."""
    listed, rows = [], []
    for name, label in (("a", 1), ("b", 0)):
        picture(root / "all" / f"{name}.png")
        if label:
            mask(root / "truth" / f"{name}_x.png")
        listed.append(
            {
                "img_path": f"{prefix}all/{name}.png",
                "mask_path": f"{prefix}truth/{name}_x.png" if label else "",
                "cls_name": class_name,
                "specie_name": "crack" if label else "good",
                "anomaly": label,
            }
        )
        truth = f"truth/{name}_x.png" if label else None
        rows.append((f"all/{name}.png", label, truth, class_name, "crack" if label else "good"))
    (root / "meta.json").write_text(json.dumps({"train": {}, "test": {class_name: listed}}))
    return rows


def visa(root: Path) -> list[Row]:
    lines, rows = ["object,split,label,image,mask"], []
    for name in ("candle", "pcb1"):
        picture(root / f"{name}/Data/Images/Normal/0000.JPG")
        lines.append(f"{name},train,normal,{name}/Data/Images/Normal/0000.JPG,")
        normal = f"{name}/Data/Images/Normal/0001.JPG"
        picture(root / normal)
        lines.append(f"{name},test,normal,{normal},")
        anomalous, truth = f"{name}/Data/Images/Anomaly/000.JPG", f"{name}/Data/Masks/Anomaly/000.png"
        picture(root / anomalous)
        mask(root / truth, value=3)
        lines.append(f"{name},test,anomaly,{anomalous},{truth}")
        rows += [(normal, 0, None, name, "good"), (anomalous, 1, truth, name, "anomaly")]
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return rows


def dagm(root: Path) -> list[Row]:
    rows: list[Row] = []
    for name in ("Class1", "Class2", "Class10"):
        for stem, marked in (("0001", False), ("0002", True), ("0003", False)):
            for split in ("Test", "Train"):
                picture(root / name / split / f"{stem}.PNG", mode="L")
                if marked:
                    mask(root / name / split / "Label" / f"{stem}_label.PNG")
            truth = f"{name}/Test/Label/{stem}_label.PNG" if marked else None
            kind = "defect" if marked else "good"
            rows.append((f"{name}/Test/{stem}.PNG", int(marked), truth, name, kind))
        (root / name / "Test" / "Label" / "Labels.txt").write_text("1\n")
    return rows


def dagm_balanced(root: Path) -> list[Row]:
    dagm(root)
    rows: list[Row] = []
    for name in ("Class1", "Class2", "Class10"):
        for split in ("Train", "Test"):
            truth = f"{name}/{split}/Label/0002_label.PNG"
            rows.append((f"{name}/{split}/0002.PNG", 1, truth, name, "defect"))
            rows.append((f"{name}/{split}/0001.PNG", 0, None, name, "good"))
    return rows


def ksdd(root: Path) -> list[Row]:
    """Two images of 3 x 8 rows, marked in the first third of the second. Rows: that anomalous piece alone."""
    for part, marked in (("Part0", False), ("Part1", True)):
        picture(root / "kos01" / f"{part}.jpg", (6, 24), "L")
        mask(root / "kos01" / f"{part}_label.bmp", marked, (6, 24))
    name = "electrical_commutators"
    image = f"{name}/test/defect/kos01_Part1_0.png"
    return [(image, 1, f"{name}/ground_truth/defect/kos01_Part1_0_mask.png", name, "defect")]


def headct(root: Path) -> list[Row]:
    for number in range(4):
        picture(root / "head_ct" / f"{number:03d}.png")
    (root / "labels.csv").write_text("id, hemorrhage\n0,1\n1,0\n2,1\n3,0\n")
    kinds = ("haemorrhage", "good") * 2
    return [(f"head_ct/{i:03d}.png", 1 - i % 2, None, "brain", kinds[i]) for i in range(4)]


def covid(root: Path) -> list[Row]:
    """The form with lung masks; they must not be taken for masks of findings."""
    for folder in ("COVID", "Normal", "Viral Pneumonia"):
        picture(root / folder / "images" / f"{folder}-2.png", mode="L")
        mask(root / folder / "masks" / f"{folder}-2.png")
    (root / "README.md.txt").write_text("about")
    rows: list[Row] = [("COVID/images/COVID-2.png", 1, None, "chest", "COVID")]
    return [*rows, ("Normal/images/Normal-2.png", 0, None, "chest", "good")]


def covid_all(root: Path) -> list[Row]:
    first, last = covid(root)
    pneumonia = "Viral Pneumonia"
    return [first, (f"{pneumonia}/images/{pneumonia}-2.png", 1, None, "chest", pneumonia), last]


def isic(root: Path) -> list[Row]:
    name = "ISBI2016_ISIC_Part1_"
    picture(root / f"{name}Training_Data" / "ISIC_0000000.jpg")
    mask(root / f"{name}Training_GroundTruth" / "ISIC_0000000_Segmentation.png")
    picture(root / f"{name}Test_Data" / "ISIC_0000003.jpg")
    truth = f"{name}Test_GroundTruth/ISIC_0000003_Segmentation.png"
    mask(root / truth)
    return [(f"{name}Test_Data/ISIC_0000003.jpg", 1, truth, "skin", "anomaly")]


def tn3k(root: Path) -> list[Row]:
    images_masks(root, "thyroid", "trainval-image", "trainval-mask", mask_end=".jpg")
    return images_masks(root, "thyroid", "test-image", "test-mask", mask_end=".jpg")


def clinicdb(root: Path) -> list[Row]:
    return images_masks(root, "colon", "Original", "Ground Truth", suffix=".tif", mask_end=".tif")


def colondb(root: Path) -> list[Row]:
    """Images and masks side by side, in natural order, with something else between them."""
    rows: list[Row] = []
    for number in (2, 10):
        picture(root / f"{number}.tiff")
        mask(root / f"p{number}.tiff")
        picture(root / f"c{number}.tiff")
        rows.append((f"{number}.tiff", 1, f"p{number}.tiff", "colon", "anomaly"))
    return rows


def headct_nested(root: Path) -> list[Row]:
    """With the folder in a folder of its own name, as the archive holds it."""
    rows = headct(root)
    (root / "head_ct").rename(root / "inner")
    (root / "head_ct").mkdir()
    (root / "inner").rename(root / "head_ct" / "head_ct")
    return [(f"head_ct/{name}", *rest) for name, *rest in rows]


def doubled(build: Callable[[Path], list[Row]]) -> Callable[[Path], list[Row]]:
    """Each folder of a set unpacked into a folder of its own name, as for sets with an archive per class."""

    def nested(root: Path) -> list[Row]:
        rows = build(root)
        for folder in list(root.iterdir()):
            folder.rename(root / "inner")
            folder.mkdir()
            (root / "inner").rename(folder / folder.name)

        def moved(name: str) -> str:
            return f"{name.split('/')[0]}/{name}"

        return [(moved(name), label, truth and moved(truth), *rest) for name, label, truth, *rest in rows]

    return nested


def visa_prepared(root: Path) -> list[Row]:
    """VisA's own preparation script writes MVTec AD's layout."""
    return mvtec_style(root, ("candle", "pcb1"), defects=("bad",), suffix=".JPG", mask_end=".png")


def br35h_archive(root: Path) -> list[Row]:
    rows = yes_no(root, "brain")
    picture(root / "pred" / "pred0.jpg")
    picture(root / "Br35H-Mask-RCNN" / "TEST" / "y702.jpg")
    return rows


def brainmri_archive(root: Path) -> list[Row]:
    """The archive holds everything twice."""
    rows = yes_no(root, "brain")
    yes_no(root / "brain_tumor_dataset", "brain")
    return rows


def covid_first(root: Path) -> list[Row]:
    for folder in ("COVID-19", "NORMAL", "Viral Pneumonia"):
        picture(root / folder / f"{folder} (1).png")
    covid19: Row = ("COVID-19/COVID-19 (1).png", 1, None, "chest", "COVID-19")
    return [covid19, ("NORMAL/NORMAL (1).png", 0, None, "chest", "good")]


def polyp_archive(folder: str) -> Callable[[Path], list[Row]]:
    """The archive of several polyp sets: ``TestDataset/CVC-ColonDB/{images,masks}`` and others."""

    def build(root: Path) -> list[Row]:
        for other in ("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "Kvasir"):
            (root / "TestDataset" / other).mkdir(parents=True)
        return images_masks(root / "TestDataset" / folder, "colon", suffix=".png")

    return build


def bmad(root: Path, class_name: str) -> list[Row]:
    picture(root / "train/good/img/7.png")
    for split in ("valid", "test"):
        picture(root / split / "good/img/1.png")
        picture(root / split / "Ungood/img/2.png")
        mask(root / split / "Ungood/label/2.png")
    return [
        ("test/good/img/1.png", 0, None, class_name, "good"),
        ("test/Ungood/img/2.png", 1, "test/Ungood/label/2.png", class_name, "Ungood"),
    ]


def bmad_image(root: Path, class_name: str) -> list[Row]:
    picture(root / "test/good/1.png")
    picture(root / "test/Ungood/2.png")
    return [
        ("test/good/1.png", 0, None, class_name, "good"),
        ("test/Ungood/2.png", 1, None, class_name, "Ungood"),
    ]


def _polyps(root: Path) -> list[Row]:
    return images_masks(root, "colon")


# The published layout of each of the paper's 17 sets.
PUBLISHED: dict[str, Callable[[Path], list[Row]]] = {
    "mvtec": lambda root: mvtec_style(root, ("bottle", "cable")),
    "visa": visa,
    "mpdd": lambda root: mvtec_style(root, ("bracket_black", "tubes")),
    "btad": lambda root: mvtec_style(
        root, ("01", "02", "03"), good="ok", defects=("ko",), suffix=".bmp", mask_end=".png"
    ),
    "ksdd": ksdd,
    "dagm": dagm,
    "dtd-synthetic": lambda root: mvtec_style(root, ("Blotchy_099", "Woven_001"), defects=("bad",)),
    "headct": headct,
    "brainmri": lambda root: yes_no(root, "brain"),
    "br35h": lambda root: yes_no(root, "brain"),
    "covid19": covid,
    "isic": isic,
    "colondb": colondb,
    "clinicdb": clinicdb,
    "kvasir": _polyps,
    "endo": _polyps,
    "tn3k": tn3k,
}

# The others that are made of images.
FURTHER: dict[str, Callable[[Path], list[Row]]] = {
    "dagm-balanced": dagm_balanced,
    "covid19-all": covid_all,
    "ddti": lambda root: images_masks(root, "thyroid", suffix=".PNG"),
    "magnetic-tile": lambda root: mvtec_style(root, ("tile",), suffix=".jpg"),
    "bmad-brain": lambda root: bmad(root, "brain"),
    "bmad-liver": lambda root: bmad(root, "liver"),
    "bmad-resc": lambda root: bmad(root, "retina"),
    "bmad-oct2017": lambda root: bmad_image(root, "retina"),
    "bmad-chest": lambda root: bmad_image(root, "chest"),
    "bmad-histopathology": lambda root: bmad_image(root, "tissue"),
}

# Other forms that archives come in: set, builder, and the folder below the root that ids begin at.
ARCHIVES: dict[str, tuple[str, Callable[[Path], list[Row]], str]] = {
    "colondb in images and masks": ("colondb", _polyps, ""),
    "colondb in the polyp archive": ("colondb", polyp_archive("CVC-ColonDB"), "TestDataset/CVC-ColonDB"),
    "clinicdb in images and masks": ("clinicdb", _polyps, ""),
    "clinicdb in the polyp archive": ("clinicdb", polyp_archive("CVC-ClinicDB"), "TestDataset/CVC-ClinicDB"),
    "kvasir in the polyp archive": ("kvasir", polyp_archive("Kvasir"), "TestDataset/Kvasir"),
    "headct in two folders": ("headct", headct_nested, ""),
    "isic in two folders": ("isic", doubled(isic), ""),
    "mvtec, an archive per class": ("mvtec", doubled(lambda root: mvtec_style(root, ("bottle", "tile"))), ""),
    "dagm, an archive per class": ("dagm", doubled(dagm), ""),
    "clinicdb in two folders": ("clinicdb", doubled(clinicdb), ""),
    "tn3k in two folders": ("tn3k", doubled(tn3k), ""),
    "visa prepared": ("visa", visa_prepared, ""),
    "br35h": ("br35h", br35h_archive, ""),
    "covid19, first release": ("covid19", covid_first, ""),
}
