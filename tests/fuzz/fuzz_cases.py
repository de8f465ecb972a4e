"""Command lines with damaged, absurd and hostile input, made from a seed."""

from __future__ import annotations

import gzip
import json
import math
import os
import pickle
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from dicom_factory import image, save

from medzsad.zoo.catalogue import weights_folder

Made = tuple[list[str], dict[str, str]]
"""Arguments of one command, and variables of its environment."""

NUMBERS = (0, -1, 1, 2, 7, 2**15 - 1, 2**31 - 1, 2**62, 1e-45, 1e-30, 1e-9, 1e30, 3e38, 1e308)
FLOATS = (*NUMBERS, math.inf, -math.inf, math.nan)
TEXTS = (
    "",
    " ",
    "\0",
    "../..",
    "~",
    "~nobody/x",
    "a" * 300,
    "\x1b[2J",
    "\udcff",
    "%s",
    "<script>",
    "é漢",
    "-",
    "nan",
    "1e999",
)


def originals(folder: Path) -> None:
    """Write the sound files that cases are made from."""
    rng = np.random.default_rng(0)
    voxels = rng.normal(100, 20, (12, 12, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), folder / "scan.nii")
    nibabel.save(nibabel.Nifti2Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), folder / "scan2.nii")
    (folder / "scan.nii.gz").write_bytes(gzip.compress((folder / "scan.nii").read_bytes(), 1))
    picture = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "tif", "bmp"):
        Image.fromarray(picture).save(folder / f"image.{suffix}")
    dicom(folder / "slice.dcm")
    deflated_bomb(folder / "deflated.dcm", 2**30)


def dicom(path: Path, **tags: Any) -> None:
    """Write a small CT slice with these attributes."""
    pixels = np.random.default_rng(1).integers(-900, 900, (12, 12)).astype(np.int16)
    save(image(pixels, **tags), path)


def deflated_bomb(path: Path, zeros: int) -> None:
    """Write a deflated DICOM file of a few kilobytes that inflates to ``zeros`` bytes and more."""
    dataset = image(np.zeros((12, 12), np.int16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = save(dataset, path).read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("wb") as file:
        file.write(content[:start] + pack.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS)))
        for _ in range(zeros >> 20):
            file.write(pack.compress(bytes(1 << 20)))
        file.write(pack.flush())


def damaged(content: bytes, rng: random.Random, where: int | None = None) -> bytes:
    """Return bytes with some flipped, cut, doubled or replaced."""
    data = bytearray(content)
    end = min(len(data), where or len(data))
    for _ in range(rng.choice((1, 2, 8, 40))):
        place = rng.randrange(end)
        data[place] = rng.choice(
            (0, 255, 127, 128, data[place] ^ (1 << rng.randrange(8)), rng.randrange(256))
        )
    change = rng.randrange(5)
    if change == 0:
        data = data[: rng.randrange(len(data))]
    elif change == 1:
        place = rng.randrange(len(data))
        data[place:place] = rng.randbytes(rng.choice((1, 100, 10_000)))
    return bytes(data)


def predict(path: str | Path, *options: str) -> list[str]:
    """Return the arguments that predict a scan, with as little written as possible."""
    return ["predict", str(path), "-o", "out", "--overlay", "none", "--device", "cpu", "-q", *options]


def nifti_header(folder: Path, base: Path, rng: random.Random) -> Made:
    """Fields of a NIfTI header set to absurd numbers."""
    name = rng.choice(("scan.nii", "scan2.nii"))
    data = bytearray((base / name).read_bytes())
    one = name == "scan.nii"
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.5:
            number = rng.choice([n for n in NUMBERS if isinstance(n, int)])
            place = rng.choice((40, 42, 44, 46, 48) if one else (16, 24, 32, 40, 48))
            struct.pack_into("<h" if one else "<q", data, place, min(number, 2**15 - 1) if one else number)
        else:
            places = (
                (80, 84, 88, 108, 112, 116, 256, 268, 280, 292, 296, 320)
                if one
                else (104, 112, 176, 184, 400, 440)
            )
            value = rng.choice(FLOATS)
            value = value if one is False or not abs(value) < math.inf else max(-3e38, min(3e38, value))
            struct.pack_into("<f" if one else "<d", data, rng.choice(places), value)
    if rng.random() < 0.3:
        for place in (252, 254) if one else (344, 348):
            struct.pack_into("<h" if one else "<i", data, place, rng.choice((0, 1, 4, 255, -1)))
    path = folder / "scan.nii.gz" if rng.random() < 0.3 else folder / "scan.nii"
    path.write_bytes(gzip.compress(bytes(data), 1) if path.suffix == ".gz" else bytes(data))
    return predict(path), {}


def scan_bytes(folder: Path, base: Path, rng: random.Random) -> Made:
    """Any scan file with bytes flipped, cut or put in."""
    name = rng.choice(
        (
            "scan.nii",
            "scan.nii.gz",
            "slice.dcm",
            "slice.dcm",
            "image.png",
            "image.jpg",
            "image.tif",
            "image.bmp",
        )
    )
    data = damaged((base / name).read_bytes(), rng, rng.choice((None, 352)))
    (folder / (name if rng.random() < 0.9 else rng.choice(("x.nii", "x.png", "x", "x.dcm")))).write_bytes(
        data
    )
    return predict(next(folder.iterdir()) if rng.random() < 0.7 else folder), {}


def dicom_tags(folder: Path, base: Path, rng: random.Random) -> Made:
    """DICOM slices with absurd attributes."""
    tags: dict[str, Any] = {}
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice(
            [
                "Rows",
                "Columns",
                "NumberOfFrames",
                "BitsAllocated",
                "BitsStored",
                "SamplesPerPixel",
                "PixelSpacing",
                "SliceThickness",
                "ImagePositionPatient",
                "ImageOrientationPatient",
                "RescaleSlope",
                "RescaleIntercept",
                "InstanceNumber",
                "Modality",
                "SeriesDescription",
                "PhotometricInterpretation",
                "PixelRepresentation",
                "WindowCenter",
                "WindowWidth",
            ]
        )
        vr = pydicom.datadict.dictionary_VR(name)
        if vr == "US":
            tags[name] = rng.choice((0, 1, 2, 3, 8, 12, 13, 32, 60000, 65535))
        elif vr in ("DS", "IS"):
            one = [
                f"{n:.6g}"[:16] if vr == "DS" else str(int(n))
                for n in NUMBERS
                if vr == "DS" or abs(n) < 2**62
            ]
            tags[name] = [
                rng.choice(one)
                for _ in range(
                    {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}.get(name, 1)
                )
            ]
        else:
            tags[name] = rng.choice(("", "XX", "RGB", "PALETTE COLOR", "YBR_FULL", "MR", "SEG", "\x1b[2J<b>"))
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    uid = generate_uid()
    for number in range(rng.choice((1, 3))):
        try:
            own = {
                "InstanceNumber": number,
                "SeriesInstanceUID": uid,
                "ImagePositionPatient": [0, 0, 2 * number],
            }
            dicom(folder / f"{number}.dcm", **(own | (tags if number != 1 else {})))
        except Exception:  # pydicom does not write it
            (folder / f"{number}.dcm").write_bytes(damaged((base / "slice.dcm").read_bytes(), rng))
    return predict(folder), {}


def options(folder: Path, base: Path, rng: random.Random) -> Made:
    """A sound scan with absurd options."""
    path = base / rng.choice(("scan.nii", "image.png", "slice.dcm"))
    numbers = [str(n) for n in FLOATS] + list(TEXTS[:2] + TEXTS[3:])
    choice = {
        "--window": lambda: rng.choice(
            ("1,1e308", "1e308,1", "1,1e-320", "nan,1", "1", "brain+bone+lung+brain", "0,0", *numbers)
        ),
        "--threshold": lambda: rng.choice(("p999", "p-1", "pnan", "otsu", "p", *numbers)),
        "--volume": lambda: rng.choice(numbers),
        "--batch-size": lambda: rng.choice(("1000000000", "0", "99999999999999999999", *numbers)),
        "--plane": lambda: rng.choice(("all", *TEXTS[3:])),
        "--modality": lambda: rng.choice(("ct", "rgb", *TEXTS[3:])),
        "--device": lambda: rng.choice(("meta", "cuda:99", "cpu:9", "xla", "meta:0", *TEXTS[3:])),
        "--model": lambda: rng.choice(
            ("headclip", "/dev/zero", str(base), str(base / "scan.nii"), *TEXTS[3:])
        ),
        "--organ": lambda: rng.choice(TEXTS[3:]),
        "--series": lambda: rng.choice(TEXTS[3:]),
        "--clip-weights": lambda: rng.choice((str(base / "image.png"), *TEXTS[3:])),
        "--jobs": lambda: rng.choice(("10000", "-1", *TEXTS[3:])),
        "--shard": lambda: rng.choice(("0/0", "2/1", "1/999999999999", *TEXTS[3:])),
    }
    names = rng.sample(sorted(choice), rng.choice((1, 1, 2)))
    return predict(path, *(part for name in names for part in (name, choice[name]()))), (
        {"HOME": ""} if rng.random() < 0.1 else {}
    )


def texts(folder: Path, base: Path, rng: random.Random) -> Made:
    """Tables, lists, catalogues and recipes that are damaged, deep, binary, or bombs."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
    odd = [
        b"[" * 50_000,
        b'{"a":' * 50_000,
        bomb.encode(),
        rng.randbytes(300),
        b"\xff\xfe",
        b"",
        b"null",
        b"[]",
        b"1e999",
    ]
    kind = rng.choice(("table", "catalogue", "recipe", "list", "meta", "cohort"))
    sound = {
        "table": f"scan,id,modality\n{base / 'scan.nii'},a,mr\n",
        "catalogue": "models:\n  x: {method: mini, title: y}\nfiles: {}\n",
        "recipe": "name: x\nmethod: headclip\ndetector: {image_size: 70}\ndata: [{dataset: mvtec}]\n",
        "list": json.dumps({"training": [{"image": "scan.nii", "label": "scan.nii"}]}),
        "meta": json.dumps(
            {"test": {"x": [{"img_path": "a.png", "mask_path": "", "cls_name": "x", "anomaly": 0}]}}
        ),
        "cohort": json.dumps({"model": "medzsad-mini", "settings": {}}),
    }[kind].encode()
    content = rng.choice(odd) if rng.random() < 0.4 else damaged(sound, rng)
    if rng.random() < 0.3:
        content = sound.replace(b"x", rng.choice(TEXTS[3:]).encode("utf-8", "surrogatepass"), 1)
    if kind == "recipe" and rng.random() < 0.3:
        content = sound + rng.choice(
            (b"batch_size: 1000000000\n", b"workers: 10000\n", b"epochs: .inf\n", b"seed: -1\n")
        )
    path = (
        folder
        / {
            "table": "scans.csv",
            "catalogue": "c.yaml",
            "recipe": "r.yaml",
            "list": "list.json",
            "meta": "meta.json",
            "cohort": "cohort.json",
        }[kind]
    )
    if rng.random() < 0.1:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    return {
        "table": (predict(path, "--jobs", "0"), {}),
        "catalogue": (["models", "list"], {"MEDZSAD_CATALOGUE": str(path)}),
        "recipe": (["train", "-c", str(path), "--dry-run", "-o", "run"], {}),
        "list": (["datasets", "check", "volumes", "--root", str(path)], {}),
        "meta": (["datasets", "check", "folder", "--root", str(folder)], {}),
        "cohort": (["cohort", "merge", str(folder)], {}),
    }[kind]


def checkpoints(folder: Path, base: Path, rng: random.Random) -> Made:
    """medzsad's checkpoints with damaged headers, metadata of other types, and values that are no numbers."""
    data = (weights_folder() / "medzsad-mini.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    change = rng.randrange(6)
    if change == 0:
        data = damaged(data, rng, 8 + length)
    elif change == 1:
        data = data[: rng.randrange(len(data))]
    elif change == 2:
        stored = json.loads(header["__metadata__"]["medzsad"])
        key = rng.choice(sorted(stored))
        stored[key] = rng.choice(
            ([], {}, None, 1, "x", 1e999, {"image_size": 10**6}, {"threshold": "nan"}, {"width": 0})
        )
        header["__metadata__"]["medzsad"] = rng.choice((json.dumps(stored), "[" * 100_000, "[1]", "null"))
    elif change == 3:
        header["__metadata__"] = rng.choice(([], "x", {"medzsad": 1}, {}))
    elif change == 4:
        rest = struct.pack("<f", math.nan) * (len(rest) // 4)
    else:
        name = rng.choice([n for n in header if n != "__metadata__"])
        header[name] = rng.choice(
            ({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}, [], {"dtype": "F32"})
        )
    if change > 1:
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, "little") + text + rest
    path = folder / "model.safetensors"
    path.write_bytes(data)
    if rng.random() < 0.5:
        return predict(base / "scan.nii", "--model", str(path)), {}
    return ["models", *rng.choice((["info", str(path)], ["import", str(path), "--as", "ours"]))], {}


class Payload:
    """What writes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch EXECUTED",)


def weights(folder: Path, base: Path, rng: random.Random) -> Made:
    """Weight files of others: pickles, archives and tensors of wrong shapes."""
    path = folder / f"x{rng.choice(('.pt', '.pth', '.safetensors', '.bin'))}"
    kind = rng.randrange(5)
    if kind == 0:
        path.write_bytes(pickle.dumps(Payload(), rng.choice((0, 2, 4))))
    elif kind == 1:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "x/data.pkl",
                rng.choice((pickle.dumps(Payload(), 2), rng.randbytes(50), b"]r\xff\xff\xff\x7f.")),
            )
            archive.writestr("x/version", "3\n")
            if rng.random() < 0.5:
                archive.writestr("x/constants.pkl", b"N.")
    else:
        tensors = {
            rng.choice(
                ("ctx_pos", "ctx_neg", "head_weights", "visual.conv1.weight", "visual.class_embedding")
            ): torch.zeros([rng.choice((0, 1, 2, 16, 24)) for _ in range(rng.randrange(5))])
            for _ in range(3)
        }
        torch.save(rng.choice((tensors, {"prompt_learner": tensors}, [tensors], 1, {1: tensors})), path)
        if rng.random() < 0.4:
            path.write_bytes(damaged(path.read_bytes(), rng))
    return ["models", "import", str(path), "--as", rng.choice(("ours", "anomalyclip-visa", *TEXTS[3:]))], {}


def bombs(folder: Path, base: Path, rng: random.Random) -> Made:
    """A few kilobytes that claim gigabytes, pipes, devices, loops, and names that nothing can have."""
    kind = rng.randrange(8)
    if kind == 0:
        header = bytearray((base / "scan.nii").read_bytes()[:352])
        struct.pack_into("<4h", header, 40, 3, *rng.choice(((30000,) * 3, (1000, 1000, 900), (2, 2, 30000))))
        (folder / "x.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(10**8), 9))
    elif kind == 1:
        (folder / "x.dcm").write_bytes((base / "deflated.dcm").read_bytes())
    elif kind == 2:
        dicom(folder / "x.dcm", NumberOfFrames=str(rng.choice((9_999_999, 2**31 - 1))))
    elif kind == 3:
        content = bytearray((base / "image.png").read_bytes())
        content[16:24] = struct.pack(">2I", *rng.choice(((60_000, 60_000), (2**31 - 1, 1), (0, 0))))
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (folder / "x.png").write_bytes(content)
    elif kind == 4:
        os.mkfifo(folder / rng.choice(("x.nii", "x.png", "x.dcm", "x.csv")))
    elif kind == 5:
        (folder / "loop").symlink_to(folder)
        (folder / "self.nii").symlink_to("self.nii")
    elif kind == 6:
        return predict(
            rng.choice(("/dev/zero", "/dev/stdin", "n" * 300 + ".nii", "~nobody/x.nii", "~/x.nii"))
        ), {"HOME": ""}
    else:
        name = rng.choice(("a\x1b[2J.nii", "<script>alert(1)<.nii", "a\udcff.nii", "-x.nii", "a\nb.nii"))
        (folder / os.fsdecode(name.encode("utf-8", "surrogateescape"))).write_bytes(
            (base / "scan.nii").read_bytes()
        )
    entries = list(folder.iterdir())
    return predict(entries[0] if len(entries) == 1 and rng.random() < 0.6 else folder), {}


KINDS: dict[str, tuple[int, Callable[[Path, Path, random.Random], Made]]] = {
    "nifti header": (20, nifti_header),
    "scan bytes": (20, scan_bytes),
    "DICOM tags": (20, dicom_tags),
    "options": (12, options),
    "texts": (14, texts),
    "checkpoints": (8, checkpoints),
    "weights": (8, weights),
    "bombs": (4, bombs),
}
"""Share, and the maker of a case in an empty folder from the sound files in another."""


def kind_of(number: int) -> str:
    """Return the kind of the case of this number: each in its share, in turns."""
    wheel = [name for name, (share, _) in KINDS.items() for _ in range(share)]
    return wheel[number * 37 % len(wheel)]
