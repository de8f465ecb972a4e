"""DICOM pixels to values: decompression, rescaling to HU or stored units, colour, inverted greys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medzsad.errors import BadInput, certain
from medzsad.scans.claims import check_compressed_frames
from medzsad.scans.dicom.files import quiet, read_dataset
from medzsad.scans.dicom.frames import Frame
from medzsad.scans.scan import Modality

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


class PixelReader:
    """Decodes frames; one file is held in memory at a time.

    Args:
        modality: decides whether MONOCHROME1 (low values shown bright) is inverted: HU mean what they mean
            however they are displayed.
    """

    def __init__(self, modality: Modality) -> None:
        self._modality = modality
        self._path: Path | None = None
        self._dataset: Dataset | None = None
        self._frames: np.ndarray | None = None

    def __call__(self, frame: Frame) -> np.ndarray:
        """Values of one frame.

        Returns:
            float32 (rows, columns), or (rows, columns, 3) from 0 to 255.

        Raises:
            BadInput: no pixel data, or a compression that cannot be decoded.
        """
        if frame.path != self._path:
            self._dataset = read_dataset(frame.path)
            self._frames = _decode(self._dataset, frame.path)
            self._path = frame.path
        frames = certain(self._frames)
        if frame.index >= len(frames):
            raise BadInput(f"{frame.path} holds {len(frames)} frames, its header says more; export it again.")
        pixels = frames[frame.index]
        if frame.tile:
            row, column = frame.tile
            pixels = pixels[row : row + frame.rows, column : column + frame.columns]
        if pixels.ndim == 3:
            return pixels.astype(np.float32)
        dataset = certain(self._dataset)
        if not dataset.get("ModalityLUTSequence"):
            return self._rescale(pixels, frame)
        values, bits = _looked_up(pixels, dataset, frame.path)
        return np.float32(2**bits - 1) - values if self.inverts(frame) else values

    def inverts(self, frame: Frame) -> bool:
        """Whether the frame's grey levels are turned over."""
        return (
            self._modality is not Modality.CT
            and frame.header.get("PhotometricInterpretation") == "MONOCHROME1"
        )

    def padding(self, frame: Frame) -> float | None:
        """Return the value, after rescaling, of pixels that the header declares as padding."""
        raw = frame.header.get("PixelPaddingValue")
        if raw is None or frame.samples != 1 or frame.header.get("ModalityLUTSequence"):
            return None
        signed = int(frame.header.get("PixelRepresentation") or 0)
        raw = np.array([int(raw)]).astype(
            np.int16 if signed else np.uint16
        )  # some writers get its sign wrong
        return float(self._rescale(stored_bits(raw, frame.header).astype(np.int64), frame)[0])

    def _rescale(self, pixels: np.ndarray, frame: Frame) -> np.ndarray:
        values = pixels.astype(np.float32)
        if self.inverts(frame):
            bits = int(frame.header.get("BitsStored") or 16)
            ends = -1 if frame.header.get("PixelRepresentation") else 2**bits - 1  # lowest plus highest value
            np.subtract(np.float32(ends), values, out=values)
        if frame.slope != 1.0:
            values *= np.float32(frame.slope)
        if frame.intercept != 0.0:
            values += np.float32(frame.intercept)
        return values


def display_range(frame: Frame) -> list[int] | None:
    """[0, 255] for 8-bit data that are made for display: colour, or unsigned grey levels without
    rescaling."""
    if is_colour(frame):
        return [0, 255]
    if frame.header.get("ModalityLUTSequence"):
        return None
    eight_bit = int(frame.header.get("BitsStored") or 16) == 8 and not frame.header.get("PixelRepresentation")
    return [0, 255] if eight_bit and (frame.slope, frame.intercept) == (1.0, 0.0) else None


def is_colour(frame: Frame) -> bool:
    """Whether the frame decodes to red, green and blue."""
    return frame.samples == 3 or frame.header.get("PhotometricInterpretation") == "PALETTE COLOR"


def _decode(dataset: Dataset, path: Path) -> np.ndarray:
    """(frames, rows, columns[, 3]); colours as uint8 RGB."""
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise BadInput(f"{path} is DICOM without pixel data; give the file that holds the image.")
    _complete_meta(dataset)
    check_compressed_frames(dataset, path)
    try:
        with quiet():
            pixels, colour_space = _pixel_array(dataset)
            if colour_space == "PALETTE COLOR":
                pixels = _apply_palette(pixels, dataset)
            elif colour_space.startswith("YBR"):
                pixels = _ybr_to_rgb(pixels, colour_space)
    except Exception as error:  # every plugin has exceptions of its own
        raise BadInput(f"{path} {_why_undecoded(dataset, error)}") from error
    colour = int(dataset.get("SamplesPerPixel") or 1) == 3 or colour_space == "PALETTE COLOR"
    frames = pixels if pixels.ndim == (4 if colour else 3) else pixels[None]
    if colour:
        return _eight_bit(frames, dataset, colour_space)
    return stored_bits(frames, dataset)


def _pixel_array(dataset: Dataset) -> tuple[np.ndarray, str]:
    """Return decoded pixels and the colour space they are in, which pydicom 2 leaves to its plugins."""
    from pydicom import __version_info__

    modern = int(__version_info__[0]) >= 3
    if modern:
        dataset.pixel_array_options(correct_unused_bits=False)  # it assumes that these are the high bits
    pixels = dataset.pixel_array
    colour_space = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    converted = colour_space.startswith("YBR") and modern
    return pixels, "RGB" if converted or colour_space in ("YBR_RCT", "YBR_ICT") else colour_space


def _looked_up(pixels: np.ndarray, dataset: Dataset, path: Path) -> tuple[np.ndarray, int]:
    """Return the values that a table in the header gives for stored ones, instead of a slope.

    And their bits.
    """
    try:
        from pydicom.pixels import apply_modality_lut
    except ImportError:  # pydicom 2
        from pydicom.pixel_data_handlers.util import apply_modality_lut  # type: ignore[no-redef] # of old
    try:
        with quiet():
            bits = int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
            return np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float32), bits
    except Exception as error:  # pydicom raises whatever its parser stumbles over
        raise BadInput(f"{path} has a ModalityLUTSequence that cannot be used; export it again.") from error


def _apply_palette(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    try:
        from pydicom.pixels import apply_color_lut
    except ImportError:  # pydicom 2
        from pydicom.pixel_data_handlers.util import apply_color_lut  # type: ignore[no-redef] # of old
    return apply_color_lut(pixels, dataset)


def _ybr_to_rgb(pixels: np.ndarray, colour_space: str) -> np.ndarray:
    try:
        from pydicom.pixels import convert_color_space
    except ImportError:  # pydicom 2
        from pydicom.pixel_data_handlers.util import convert_color_space  # type: ignore[no-redef] # of old
    return convert_color_space(pixels, colour_space, "RGB")


def _eight_bit(pixels: np.ndarray, dataset: Dataset, colour_space: str) -> np.ndarray:
    """Colours as uint8; deeper ones lose their low bits, which no display shows."""
    if pixels.dtype == np.uint8:
        return pixels[..., :3]
    bits = 16 if colour_space == "PALETTE COLOR" else int(dataset.get("BitsStored") or 8)
    return (pixels[..., :3] / (2.0**bits - 1) * 255).round().clip(0, 255).astype(np.uint8)


def stored_bits(pixels: np.ndarray, header: Dataset) -> np.ndarray:
    """Return the values alone of pixels that have bits to spare: high bits cleared, or filled with the sign.

    Old files keep overlay graphics there, others what was there before. pydicom does the same from version 3
    on, but not to every compressed file.
    """
    bits = int(header.get("BitsStored") or 16)
    if pixels.dtype.kind not in "iu" or not 0 < bits < pixels.dtype.itemsize * 8:
        return pixels
    unused = pixels.dtype.itemsize * 8 - bits
    spare_low_bits = int(header.get("HighBit") or bits - 1) - (bits - 1)
    if 0 < spare_low_bits <= unused and not (pixels & (2**spare_low_bits - 1)).any():
        # ACR-NEMA's way: the values fill the high bits. Others only state the high bit wrongly.
        return (pixels << (unused - spare_low_bits)) >> unused
    return (pixels << unused) >> unused


def _complete_meta(dataset: Dataset) -> None:
    """Files without a preamble do not name their transfer syntax: it is how they could be parsed."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = getattr(dataset, "original_encoding", None) or (
        dataset.is_implicit_VR,
        dataset.is_little_endian,
    )
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _why_undecoded(dataset: Dataset, error: Exception) -> str:
    """Return the rest of the sentence that starts with the file's name."""
    from pydicom.uid import UID

    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    name = syntax.name if syntax.name != str(syntax) else "an unknown transfer syntax"
    if syntax in UNCOMPRESSED:
        short = "bytes" in str(error) and "expected" in str(error)
        what = "is cut short: it holds fewer pixels than its header says" if short else "has damaged pixels"
        return f"{what} ({name}); copy or export it again."
    return (
        f"has pixels that cannot be decoded ({name}, {syntax}); the file may be damaged, or decompress it "
        "first, for example with gdcmconv --raw."
    )
