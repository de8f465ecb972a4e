"""What became of a few scans that were predicted one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medzsad.batch.names import shown
from medzsad.errors import MedzsadError

NAME_WIDTH = 32


@dataclass
class Outcome:
    """What became of each input.

    Attributes:
        done: input path or URL, its report (see docs/outputs.md) and the files written, in the inputs' order.
        failed: input path or URL, and the error.
    """

    done: list[tuple[Path | str, dict[str, Any], dict[str, Path]]] = field(default_factory=list)
    failed: list[tuple[Path | str, Exception]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done, 2 some input was bad, 1 something broke that is not the input's fault."""
        codes = [error.exit_code if isinstance(error, MedzsadError) else 1 for _, error in self.failed]
        return min(codes, default=0)

    def document(self) -> dict[str, Any]:
        """JSON-serialisable: ``scans`` (input, files, report's fields) and ``failed`` (input, error)."""
        return {
            "scans": [
                {"input": shown(path), "files": {kind: str(file) for kind, file in files.items()}, **report}
                for path, report, files in self.done
            ],
            "failed": [{"input": shown(path), "error": shown(error)} for path, error in self.failed],
        }

    def table(self) -> list[str]:
        """Lines of a summary for the terminal; at most 80 columns, but for the folder's name."""
        if not self.done:
            return []
        columns = "{:<" + str(NAME_WIDTH) + "} {:>6} {:>8} {:>10} {:>7} {:>8}"
        lines = [columns.format("scan", "score", "lesions", "largest", "slices", "time")]
        for _, report, _ in self.done:
            volumes = [lesion["volume_ml"] for lesion in report["lesions"] if lesion["volume_ml"] is not None]
            largest = f"{max(volumes):.1f} mL" if volumes else "-"
            seconds = sum(report["timings_s"].values())
            lines.append(
                columns.format(
                    shortened(report["name"]),
                    f"{report['score']:.3f}",
                    len(report["lesions"]),
                    largest,
                    len(report["slices"]),
                    f"{seconds:.1f} s",
                )
            )
        folders = sorted({str(file.parent) for _, _, files in self.done for file in files.values()})
        count = sum(len(files) for _, _, files in self.done)
        return [*lines, f"{count} files in {', '.join(folders)}", "Research use only - not for diagnosis."]


def shortened(name: str) -> str:
    """At most :data:`NAME_WIDTH` letters of a name, its beginning and its end."""
    half = NAME_WIDTH // 2 - 1
    return name if len(name) <= NAME_WIDTH else f"{name[:half]}..{name[-half:]}"
