"""What a shell offers after an option when the tab key is pressed. Neither numpy nor torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from medzsad.errors import MedzsadError

PLANES = ("auto", "axial", "coronal", "sagittal", "all")
Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _names(list_names: Callable[[], Iterable[str]], *, or_file: bool = False) -> Completion:
    """Return what offers names, and files where no name begins so, or none can be told."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            items = [CompletionItem(name) for name in list_names() if name.startswith(incomplete)]
        except MedzsadError:  # such as of a damaged catalogue, which the command itself will tell
            items = []
        return items or ([CompletionItem(incomplete, type="file")] if or_file else [])

    return complete


def _models() -> Iterable[str]:
    from medzsad.zoo.catalogue import entries

    return entries()


def _datasets() -> Iterable[str]:
    from medzsad.datasets.catalog import entries

    return entries()


complete_model = _names(_models, or_file=True)
complete_dataset = _names(_datasets)
complete_plane = _names(lambda: PLANES)
