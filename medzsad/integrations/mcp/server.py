"""The tools that an agent gets: to find, predict and look, and nothing else."""

from __future__ import annotations

import concurrent.futures
import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medzsad import __version__
from medzsad.errors import BadInput, MedzsadError, explained
from medzsad.integrations.mcp.folders import Folders
from medzsad.scans.own_results import mark_of
from medzsad.storage.text_files import parse_json

try:
    import anyio.from_thread
    from mcp.server.mcpserver import Context, Image, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ImportError as error:
    raise BadInput(
        'medzsad mcp needs the Model Context Protocol\'s SDK; pip install "medzsad[mcp]".'
    ) from error

if TYPE_CHECKING:
    from medzsad.batch.outcome import FolderOutcome
    from medzsad.batch.watch import Notes

LONGEST_SIDE = 1568  # pixels of a picture; agents are shown larger ones smaller
LISTED = 1000  # scans
CANDIDATES = 20  # of each scan in the answer of predict; all are in its result
LOOK_S = 0.2  # between two looks whether a prediction that waits was cancelled
NO_SLICES = ("slices",)
INSTRUCTIONS = (
    "medzsad finds what looks anomalous in medical scans (NIfTI, DICOM folders, NRRD, images), without "
    "training on your data. Research use only: scores rank scans and candidates, are no probabilities of "
    "disease, and must not be used for diagnosis. Usual order: list_scans, predict, show_overlay, "
    "read_result. Paths are relative to the server's folder."
)
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


def create_server(folders: Folders) -> MCPServer:
    """Return the server with its tools; ``run("stdio")`` lets it answer."""
    server = MCPServer("medzsad", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING")
    tools = _Tools(folders)
    for tool in (tools.list_models, tools.list_scans, tools.read_result, tools.show_overlay):
        server.tool(annotations=READS)(tool)
    server.tool(annotations=WRITES)(tools.predict)
    return server


class _Tools:
    """What the tools share. Each docstring is what an agent reads of the tool."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._one_at_a_time = threading.Lock()

    def list_models(self) -> list[dict[str, Any]]:
        """List the models by name: method, what each is for, and whether its weights are ready here.

        Only the user can make a model ready, with `medzsad models fetch NAME`.
        """
        from medzsad.integrations.server.models import describe_use
        from medzsad.storage import cache
        from medzsad.zoo.catalogue import catalogue

        return [
            {
                "name": entry.name,
                "method": entry.method,
                "about": entry.title,
                "for": describe_use(entry),
                "ready": all(cache.is_ready(part) for part in entry.parts),
                "licence": entry.licence,
            }
            for entry in catalogue().models.values()
        ]

    def list_scans(self, folder: str = ".") -> dict[str, Any]:
        """List the scans below a folder (a DICOM folder is one scan), and what is no scan and why."""
        from medzsad.scans.find import locate_scans

        with _told():
            places, notes = locate_scans(self._folders.input(folder))
        scans = [{"path": self._folders.name(place.path), "series": place.series} for place in places]
        return {"scans": scans[:LISTED], "count": len(scans), "notes": notes}

    def predict(
        self,
        scans: list[str],
        context: Context,
        out: str = "results",
        model: str = "medzsad-mini",
        plane: Literal["auto", "axial", "coronal", "sagittal", "all"] = "auto",
        modality: Literal["ct", "mr", "xray", "us", "rgb", "grey"] | None = None,
        window: str | None = None,
        threshold: str | None = None,
        roi: Literal["brain", "whole"] | None = None,
        series: str | None = None,
        report: bool = False,
        fresh: bool = False,
    ) -> dict[str, Any]:
        """Predict scans, and write their results to a folder: anomaly map, mask, overlay and JSON report.

        A scan that was predicted with the same options is not done again. One that cannot be read stops no
        other and is in `failed`, with the reason.

        Args:
            scans: files or folders, as list_scans names them.
            out: folder for the results, in the server's folder.
            model: one of list_models that is ready.
            plane: slices that are looked at; auto is the plane of acquisition.
            modality: only if it was guessed wrongly.
            window: CT window: brain, subdural, bone, lung, mediastinum or abdomen, or centre,width in HU.
            threshold: of the map: a number from 0 to 1, a percentile such as p99.5, or otsu.
            roi: look only in the brain, or in the whole scan.
            series: UID of the DICOM series in a folder, or its end.
            report: also write an HTML report of each scan, for the user to look through.
            fresh: do it again.
        """
        from medzsad.batch.run import predict_many
        from medzsad.zoo.catalogue import catalogue

        with _told():
            if model not in catalogue().models:
                raise BadInput(f"there is no model {model!r}; list_models names them")
            inputs = [self._folders.input(text) for text in scans]
            if not inputs:
                raise BadInput("scans is empty; list_scans names some")
            folder = self._folders.output(out)
            with self._turn():
                outcome = predict_many(
                    inputs, folder, model=model, plane=plane, modality=modality, window=window,
                    threshold=threshold, roi=roi, series=series, report=report, fresh=fresh,
                    watch=_watch(context),
                )  # fmt: skip
            return self._answer(outcome)

    def read_result(self, result: str, slices: bool = False) -> dict[str, Any]:
        """Read the JSON report of a scan: score, lesion candidates with places in mm (RAS+), settings, notes.

        Args:
            result: its path, as predict names it (`result`).
            slices: also the score of every slice, which is long.
        """
        with _told():
            path = self._result(result, "report")
            document = parse_json(path.read_bytes(), result)
        return {key: value for key, value in document.items() if slices or key not in NO_SLICES}

    def show_overlay(self, overlay: str) -> Image:
        """Show a scan's most anomalous slices: the map in colour, the mask's outline, a scale bar.

        Args:
            overlay: its path, as predict names it (`overlay`).
        """
        import PIL.Image

        with _told():
            path = self._result(overlay, "overlay")
            with PIL.Image.open(path, formats=("PNG",)) as picture:
                picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
                stream = io.BytesIO()
                picture.save(stream, format="PNG", optimize=True)
        return Image(data=stream.getvalue(), format="png")

    def _result(self, text: str, kind: str) -> Path:
        path = self._folders.input(text)
        mark = mark_of(path) if path.is_file() else None
        if mark is None or mark[1] != kind:
            raise BadInput(f"{text} is no {kind} of medzsad; predict names them")
        return path

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other prediction runs; a client that has cancelled waits no longer."""
        while not self._one_at_a_time.acquire(timeout=LOOK_S):
            anyio.from_thread.check_cancelled()
        try:
            anyio.from_thread.check_cancelled()
            yield
        finally:
            self._one_at_a_time.release()

    def _answer(self, outcome: FolderOutcome) -> dict[str, Any]:
        scans = []
        for result in outcome.results():
            report = result.report
            scans.append(
                {
                    "input": self._folders.name(Path(result.input)),
                    "score": report["score"],
                    "candidates": len(report["lesions"]),
                    "highest": [
                        {key: lesion[key] for key in ("score", "volume_ml", "peak_mm", "peak_voxel")}
                        for lesion in report["lesions"][:CANDIDATES]
                    ],
                    "notes": report["notes"],
                    "result": self._folders.name(result.files["json"]),
                    "overlay": self._folders.name(result.files["overlay"]),
                    "files": {kind: self._folders.name(path) for kind, path in result.files.items()},
                }
            )
        scans.sort(key=lambda scan: -scan["score"])
        failed = [{"input": self._folders.name(Path(path)), "error": why} for path, why in outcome.reasons]
        return {"scans": scans, "failed": failed, "tables": outcome.document()["tables"]}


class _told:  # noqa: N801 - reads as what it does where it is used
    """Tells an agent in a line what is wrong with its input; a bug of ours stays one."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        known = explained(error) if isinstance(error, Exception) else None
        if isinstance(known, MedzsadError):
            raise ToolError(" ".join(str(known).replace("`", "").split())) from error


def _watch(context: Context) -> Notes:
    """Return what tells the agent how far a prediction is, and ends one that it cancelled."""
    from medzsad.batch.watch import Notes as Logged

    class Told(Logged):
        def __init__(self) -> None:
            super().__init__()
            self._total, self._done = 1, 0

        def begin(self, total: int) -> None:
            self._total = total

        def advance(self) -> None:
            self._done += 1

        def phase(self, text: str) -> None:
            if text:  # not at the end, when what is half done is tidied up
                anyio.from_thread.check_cancelled()

        def slices(self, name: str) -> Callable[..., Iterable[int]]:
            def wrap(items: Iterable[int], total: int) -> Iterator[int]:
                for number, item in enumerate(items):
                    done = self._done + self.behind + number / total
                    _report_progress(context, done, self._total, name)
                    yield item

            return wrap

    return Told()


def _report_progress(context: Context, done: float, total: int, name: str) -> None:
    """Tell the agent; raise asyncio's ``CancelledError``, which no scan's failure is, if it has cancelled."""
    anyio.from_thread.check_cancelled()
    try:
        anyio.from_thread.run(context.report_progress, done, total, name)
    except concurrent.futures.CancelledError:  # meanwhile; an ordinary error, which would be the scan's
        anyio.from_thread.check_cancelled()
        raise
