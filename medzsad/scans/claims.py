"""What NIfTI and DICOM files claim, read from their first bytes, before a library decodes anything."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from medzsad.errors import BadInput
from medzsad.limits import check_limit, check_packed, check_volume, require_file

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = b"1.2.840.10008.1.2.1.99"
MGH_BITS = {0: 8, 1: 32, 3: 32, 4: 16}
"""FreeSurfer's types of values: uchar, int, float, short."""
_LATEST_DATA = 2**28  # where the voxels of a NIfTI file may begin: extensions before have kilobytes
_STRAY = 2**24  # bytes behind the voxels that are let through
_CHUNK = 2**20


def check_nifti(path: Path) -> float:
    """Return how many bytes a NIfTI or MGH file may unpack to by its header: with more it is damaged.

    Raises:
        BadInput: if the header claims more than may be decoded. What is no NIfTI at all is let through.
    """
    require_file(path)
    compressed = path.name.lower().endswith((".gz", ".mgz"))
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            head = file.read(540)
    except (OSError, EOFError, zlib.error):
        return math.inf  # the reader says what is wrong
    for order in "<>":
        if len(head) >= 348 and struct.unpack(f"{order}i", head[:4])[0] == 348:
            dims = struct.unpack(f"{order}8h", head[40:56])
            (bits,) = struct.unpack(f"{order}h", head[72:74])
            (start,) = struct.unpack(f"{order}f", head[108:112])
            break
        if len(head) >= 540 and struct.unpack(f"{order}i", head[:4])[0] == 540:
            (bits,) = struct.unpack(f"{order}h", head[14:16])
            dims = struct.unpack(f"{order}8q", head[16:80])
            (start,) = struct.unpack(f"{order}q", head[168:176])
            break
    else:
        if len(head) < 24 or not path.name.lower().endswith((".mgh", ".mgz")):
            return math.inf
        dims, start = (4, *struct.unpack(">4i", head[4:20])), 284
        (kind,) = struct.unpack(">i", head[20:24])
        if kind not in MGH_BITS:
            raise BadInput(f"{path} is no MGH file, or holds values of an unknown type; export it again.")
        bits = MGH_BITS[kind]
    size = [max(1, abs(number)) for number in dims[1 : 1 + min(7, max(0, dims[0]))]]
    width, height, slices = (*size, 1, 1, 1)[:3]
    check_volume(path, width, height, slices)
    unpacked = float(math.prod(size)) * abs(bits) / 8
    if not 0 <= start <= _LATEST_DATA:
        raise BadInput(
            f"{path} says that its voxels begin at byte {start:g}, which cannot be; export it again."
        )
    if compressed:
        check_packed(path, unpacked)
    return start + unpacked + _STRAY


def check_deflated(path: Path) -> None:
    """Raise BadInput if a deflated DICOM file would inflate to gigabytes; others are let through.

    pydicom inflates the whole file at once, whatever is asked of it.
    """
    from pydicom.filereader import _read_file_meta_info, read_preamble

    try:
        with path.open("rb") as file:
            if DEFLATED not in file.read(4096):
                return
            file.seek(0)
            read_preamble(file, force=True)
            _read_file_meta_info(file)
            inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
            while (chunk := inflater.unconsumed_tail or file.read(_CHUNK)) and not inflater.eof:
                total += len(inflater.decompress(chunk, _CHUNK))
                check_packed(path, total)
                check_limit(total / 4, "MEDZSAD_MAX_VOXELS", path, "voxels")
    except BadInput:
        raise
    except Exception:  # damaged, as the reader will say
        return


def check_compressed_frames(dataset: Dataset, path: Path) -> None:
    """Raise BadInput if a compressed frame (JPEG, JPEG-LS, JPEG 2000) claims more than the header says.

    Decoders make room for what the frame claims.
    """
    pixels = dataset.get("PixelData")
    if not isinstance(pixels, bytes) or not pixels.startswith(b"\xfe\xff\x00\xe0"):
        return
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    place = 8 + int.from_bytes(pixels[4:8], "little")  # behind the table of offsets
    while pixels[place : place + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(pixels[place + 4 : place + 8], "little")
        size = _frame_size(pixels[place + 8 : place + 8 + min(length, 2**16)])
        if size is not None and size[0] * size[1] > rows * columns:
            raise BadInput(
                f"{path} holds compressed pixels of {size[0]} x {size[1]}, but its header says "
                f"{columns} x {rows}; export it again."
            )
        place += 8 + length


def _frame_size(start: bytes) -> tuple[int, int] | None:
    """(width, height) that a compressed frame claims; None if these bytes do not begin one."""
    place = start.find(b"\xff\x4f\xff\x51", 0, 4096)
    if place >= 0 and len(start) >= place + 24:
        right, bottom, left, top = struct.unpack(">4I", start[place + 8 : place + 24])
        return max(0, right - left), max(0, bottom - top)
    if not start.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(start) and start[place] == 0xFF:
        marker, length = start[place + 1], int.from_bytes(start[place + 2 : place + 4], "big")
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack(">2H", start[place + 5 : place + 9])
            return width, height
        place += 2 + length
    return None
