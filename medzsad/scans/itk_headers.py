"""The text headers of NRRD and MetaImage files, and whether the voxels they speak of are there and whole.

ITK waits for a pipe without end, prints lines of its own, and takes what it could not unpack for voxels: all
that is asked of the files before it reads them.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from medzsad.errors import BadInput
from medzsad.limits import check_limit, require_file
from medzsad.scans.library_warnings import one_line

META_FIELDS = ("ndims", "dimsize", "elementtype", "elementdatafile")
HEADER_BYTES = 1 << 16
_CHUNK = 1 << 20


def is_meta(path: Path) -> bool:
    """Whether the file name is that of a MetaImage header."""
    return path.name.lower().endswith((".mha", ".mhd"))


def holds_own_voxels(head: bytes) -> bool | None:
    """Return whether the head of a MetaImage file says that it holds its voxels; None if it says nothing.

    Stricter than ITK, which takes ``elementdatafile`` for no field of its own and goes on to the next line.
    """
    end = re.search(rb"(?i)elementdatafile[^\n]*\n", head)
    if end is None:
        return None
    line = head[head.rfind(b"\n", 0, end.start()) + 1 : end.end()]
    return bool(re.fullmatch(rb"ElementDataFile\s*[=:]\s*(?i:local)\s*", line))


def header_fields(path: Path) -> dict[str, str]:
    """Return the header's lines by their names in small letters.

    Raises:
        BadInput: a MetaImage header that lacks a line it needs.
    """
    fields: dict[str, str] = {}
    for line in _split(path)[0]:
        name, *rest = re.split(r"(:=|[:=])", line, maxsplit=1)
        if rest and rest[0] != ":=":
            fields.setdefault(name.strip().lower(), rest[1].strip())
    missing = [name for name in META_FIELDS if is_meta(path) and name not in fields]
    if missing:
        raise BadInput(
            f"{path} is not a readable MetaImage file (its header has no {missing[0]}); NIfTI can be read, "
            "too."
        )
    return fields


def voxel_files(path: Path, fields: dict[str, str]) -> tuple[list[Path], int]:
    """Return the files with the voxels of a header, and at which byte of them they begin.

    Raises:
        BadInput: one of them is missing, or no regular file.
    """
    lines, start = _split(path)
    name = fields.get("data file", fields.get("datafile", ""))
    if is_meta(path):
        name = re.sub("^local$", "", fields["elementdatafile"], flags=re.IGNORECASE)
    files = _listed(path, name, lines) if name else [path]
    try:
        for file in files:
            require_file(file)
    except BadInput as error:
        raise BadInput(f"{path} has its voxels in {error}") from error
    return files, 0 if name else start


def check_whole(path: Path, fields: dict[str, str], place: tuple[list[Path], int], size: float) -> None:
    """Raise BadInput if there are fewer voxels than a header says, or damaged ones.

    Args:
        path: of the header.
        fields, place: from :func:`header_fields` and :func:`voxel_files`. Of several files, ITK compares the
            sizes itself.
        size: bytes that the voxels have, unpacked.
    """
    (file, *others), start = place
    if others:
        return
    encoding = fields.get("encoding", "raw").lower()
    if fields.get("compresseddata", "").lower() == "true" or encoding in ("gz", "gzip"):
        _check_packed(path, file, start, size, fields.get("line skip", ""))
    elif fields.get("binarydata", "true").lower() == "true" and encoding == "raw":
        held = max(0, file.stat().st_size - start)
        if held < size:
            raise BadInput(
                f"{path} is cut short: there are {held} of {size:.0f} bytes of voxels; export it again."
            )


def _split(path: Path) -> tuple[list[str], int]:
    """Return the header's lines, and the byte at which voxels in the same file begin."""
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES)
    end = re.search(rb"ElementDataFile([^\n]*)\n?" if is_meta(path) else rb"\r?\n\r?\n", text)
    start = end.end() if end else len(text)
    goes_on = is_meta(path) and end is not None and b"LIST" in end[1]
    return text[: None if goes_on else start].decode("utf-8", "replace").splitlines(), start


def _listed(path: Path, name: str, lines: list[str]) -> list[Path]:
    """Return the files with the voxels of a header: one, a list at its end, or a numbered series."""
    words = name.split()
    if words[0].upper() == "LIST":
        first = next(
            i for i, line in enumerate(lines) if re.match(r"(element)?data ?file", line, re.IGNORECASE)
        )
        names = [line.strip() for line in lines[first + 1 :] if line.strip()]
    elif "%" in name and len(words) >= 4 and all(re.fullmatch(r"-?\d{1,9}", word) for word in words[1:4]):
        first, last, step = map(int, words[1:4])
        check_limit(abs(last - first), "MEDZSAD_MAX_SLICES", path, "slices")
        try:
            names = [words[0] % number for number in range(first, last + 1, step)]
        except (TypeError, ValueError):
            names = []
    else:
        names = [name]
    if not names:
        raise BadInput(f"{path} names no file with its voxels ({one_line(name)}); correct its header.")
    return [path.parent / one for one in names]


def _check_packed(path: Path, file: Path, start: int, size: float, skip: str) -> None:
    """Unpack what is packed, keeping nothing: its check sum tells whether it is damaged.

    Far more than the header says is not unpacked to its end: it could have none.
    """
    skipped = int(skip) if re.fullmatch(r"\d{1,6}", skip) else 0
    unpacker, held = zlib.decompressobj(zlib.MAX_WBITS | 32), 0  # zlib's own format, or gzip's
    with file.open("rb") as source:
        source.seek(start)
        for _ in range(skipped):
            source.readline()
        try:
            while (
                not unpacker.eof
                and held <= size + _CHUNK
                and (packed := unpacker.unconsumed_tail or source.read(_CHUNK))
            ):
                held += len(unpacker.decompress(packed, _CHUNK))
        except zlib.error:
            held = -1
    if held > size + _CHUNK:
        raise BadInput(f"{path} holds more voxels than its header says ({size:.0f} bytes); export it again.")
    if held < size or not unpacker.eof:
        raise BadInput(
            f"{path} is cut short or damaged: its compressed voxels cannot be unpacked; export it again."
        )
