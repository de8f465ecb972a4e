"""One scan as a client sends it: checked, stored under neutral names, and told of under the client's own.

The names that a client gives, which may be a patient's, stay in memory and never name a file here.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from medzsad.errors import BadInput
from medzsad.scans.itk_headers import holds_own_voxels
from medzsad.scans.names import FILE_ENDINGS

ENDINGS = (*FILE_ENDINGS, ".zip")
"""What stays of a name. All else is looked at as DICOM."""
DETACHED = (".nhdr", ".mhd")
MANY = 50_000  # files of one upload
NAME_LENGTH = 1024
THE_UPLOAD = "the upload"
_CHUNK = 1 << 20
_ROI = ".roi"  # hidden from who looks for scans
_NEUTRAL = re.compile(r"(?:(?:d\d+|\.roi)/)?(f\d{6}(?:\.[a-z]+){0,2})")
_HEADER = 1 << 16  # of NRRD and MetaImage files, in which their end must be


class TooLarge(BadInput):
    """An upload above a limit of the server."""


@dataclass
class Upload:
    """The files of one scan, in a folder of their own.

    Attributes:
        folder: where they lie.
        most_bytes: they may have together, unpacked.
        source: the file or folder to read; known after :meth:`find_scan`.
        series: which series of it.
        roi: the mask of a region of interest, if one came.
    """

    folder: Path
    most_bytes: float
    source: Path = field(default_factory=Path)
    series: str | None = None
    roi: Path | None = None
    _names: dict[str, str] = field(default_factory=dict)  # neutral name to the client's
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    _bytes: int = 0

    def create(self, name: str, *, is_roi: bool = False) -> Path:
        """Return the path of a new file.

        Args:
            name: that the client gives it; ``/`` and ``\\`` part its folders.
            is_roi: whether it is the mask of the region of interest.

        Raises:
            BadInput: if there are too many files, two of one name, or it is of a kind that is not taken.
        """
        if len(self._names) >= MANY:
            raise TooLarge(f"{THE_UPLOAD} has more than {MANY} files; send the files of one scan")
        if len(name) > NAME_LENGTH:
            raise BadInput(f"a file name has {len(name)} letters; {NAME_LENGTH} are allowed")
        parts = PurePosixPath(name.replace("\\", "/"))
        ending = next((end for end in ENDINGS if parts.name.lower().endswith(end)), "")
        if parts.suffix.lower() in DETACHED:
            raise BadInput(
                f"{parts.name} keeps its voxels in another file, which is not taken: export NRRD as .nrrd, "
                "MetaImage as .mha, or NIfTI"
            )
        stem = parts.name[: len(parts.name) - len(ending)]
        folder = self._number(("folder", str(parts.parent)))
        file = f"f{self._number((str(parts.parent), stem)):06d}{ending}"
        path = self.folder / (_ROI if is_roi else f"d{folder}") / file
        if file in self._names:
            raise BadInput(f"{THE_UPLOAD} holds two files called {parts.name}; give each its own name")
        if is_roi and self.roi is not None:
            raise BadInput(f"{THE_UPLOAD} has two parts `roi`; send one mask")
        self.roi = path if is_roi else self.roi
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._names[file] = parts.name or "a file without a name"
        return path

    def _number(self, key: tuple[str, str]) -> int:
        return self._numbers.setdefault(key, len(self._numbers) + 1)

    def count(self, size: int) -> None:
        """Count bytes that are going to be written.

        Raises:
            TooLarge: if they are more than the server takes.
        """
        self._bytes += size
        if self._bytes > self.most_bytes:
            raise TooLarge(
                f"{THE_UPLOAD} has more than {self.most_bytes / 1e6:g} MB unpacked, the limit of this server"
            )

    def find_scan(self, series: str | None = None) -> None:
        """Unpack what is packed, and find the one scan among the files.

        Args:
            series: of a DICOM series that the client chose.

        Raises:
            BadInput: if there is none, there are several, or a file is of a kind that is not taken.
            OSError: if the disk is full.
        """
        from medzsad.scans.find import locate_scans

        packed = sorted(self.folder.glob("d*/*.zip"))
        for path in packed:
            self._unpack(path)
        files = sorted(path for path in self.folder.glob("d*/*") if path.is_file())
        for path in (*files, *([self.roi] if self.roi else ())):
            _refuse_detached(path)
        if not files:
            raise BadInput(f"{THE_UPLOAD} holds no file; send the files of one scan as 'files'")
        if len(files) == 1 and not packed:
            self.source = files[0]
            return
        places = locate_scans(self.folder)[0]
        if series is not None:  # of each folder that one is read, as on the command line
            places = list({place.path: place for place in places}.values())
        if len(places) != 1:
            raise BadInput(
                f"{THE_UPLOAD} holds {len(places)} scans; send them one by one, or choose one with `series`"
            )
        self.source, self.series = places[0].path, None if series else places[0].series

    def told(self, text: str) -> str:
        """Return a message with the client's names of files instead of those they have here."""
        text = text.replace(f"{self.folder}{os.sep}", "").replace(str(self.folder), THE_UPLOAD)
        named = _NEUTRAL.sub(lambda match: self._names.get(match[1], match[0]), text)
        return re.sub(r"(?<![\w/])d\d+(?!\w)", THE_UPLOAD, re.sub(r"(?<![\w/])(d\d+|\.roi)/", "", named))

    def _unpack(self, path: Path) -> None:
        """Replace a zip by its files; their names lead nowhere, for they get others."""
        name = self._names[path.name]
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                if len(members) > MANY:
                    raise TooLarge(f"{name} holds more than {MANY} files; pack the files of one scan")
                for member in members:
                    if not _is_wanted(member):
                        continue
                    if member.flag_bits & 1:
                        raise BadInput(f"{name} is encrypted; pack it without a password")
                    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise BadInput(
                            f"{name} is packed in a way that is not taken; use plain zip (deflate)"
                        )
                    with archive.open(member) as packed, self.create(member.filename).open("wb") as file:
                        self._copy(packed, file)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as error:
            if is_disk_full(error):
                raise
            raise BadInput(f"{name} is no zip that can be unpacked; pack the files again") from error
        except Exception as error:  # zlib.error, and what damaged headers lead to
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{name} is a damaged zip; pack the files again") from error
        path.unlink()

    def _copy(self, packed: IO[bytes], file: IO[bytes]) -> None:
        while chunk := packed.read(_CHUNK):
            self.count(len(chunk))
            file.write(chunk)


def is_disk_full(error: Exception) -> bool:
    """Return whether the server has no place left, for which no upload can do anything."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a file that may be of a scan: no folder, link, hidden file or zip."""
    mode = member.external_attr >> 16
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    regular = not mode or stat.S_IFMT(mode) in (0, stat.S_IFREG)
    hidden = any(part == "__MACOSX" or (part.startswith(".") and part.strip(".")) for part in parts)
    return not member.is_dir() and regular and not hidden and not member.filename.lower().endswith(".zip")


def _refuse_detached(path: Path) -> None:
    """Refuse a header that names another file for its voxels: it could be any file of this machine.

    Stricter than who reads it: a header that two programs could understand in two ways is refused, too.

    Raises:
        BadInput: if it does, or its header does not end where it should.
    """
    if not path.name.endswith((".nrrd", ".mha")):
        return
    with path.open("rb") as file:
        text = file.read(_HEADER)
    if path.suffix == ".nrrd":
        end = re.search(rb"\r?\n\r?\n", text)
        is_alone = not re.search(rb"(?im)^\s*data ?file\s*:", text[: end.end()] if end else text)
        has_end = end is not None
    else:
        own = holds_own_voxels(text)
        has_end, is_alone = own is not None, own is not False
    if not has_end and len(text) == _HEADER:
        raise BadInput(f"{path} has a header of more than {_HEADER // 1024} KB; export it again")
    if not is_alone:
        raise BadInput(f"{path} keeps its voxels in another file, which is not taken; export it as one file")
