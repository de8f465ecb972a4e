"""From a catalogue entry to weights that are ready: what is missing, how to get it, and getting it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from medzsad.errors import ModelNotReady
from medzsad.storage import cache
from medzsad.storage.cache import locked
from medzsad.zoo import hub
from medzsad.zoo.catalogue import WeightFile, ZooEntry, absent_parts, catalogue, weight_files
from medzsad.zoo.download import Progress, Unreachable, download, dropped_file, hash_file, hub_file, mismatch


def require_ready(entry: ZooEntry, *, given: Iterable[str | None] = ()) -> None:
    """Raise ModelNotReady unless the cache holds every weight file of ``entry``.

    Args:
        entry: the model.
        given: names of parts that are not needed, because the user gives a file instead.
    """
    missing = [file for file in absent_parts(entry) if file.name not in given]
    if not missing:
        return
    raise ModelNotReady(
        f"{entry.name}: not ready, {' and '.join(_described(f) for f in missing)} missing; "
        + how_to_get(missing, entry.name)
    )


def how_to_get(missing: list[WeightFile], name: str) -> str:
    """Return, in a line, which commands bring the files that the model ``name`` misses."""
    known = weight_files()
    orphans = [file for file in missing if file.url is None and dropped_file(file, known) is None]
    commands = [f"medzsad models import FILE `as` {file.name}" for file in orphans]
    if len(orphans) < len(missing):
        commands.append(f"medzsad models fetch {name} (without a network, it says what to put where)")
    return f"run: {', then '.join(commands)}"


def by_hand(missing: list[WeightFile], name: str) -> str:
    """Return numbered steps, each address on a line of its own, that put the files of ``name`` in place."""
    steps = []
    for file in missing:
        if file.url is None:
            steps.append(f"Run: medzsad models import FILE `as` {file.name}")
            continue
        size = "" if file.megabytes is None else f", {file.megabytes:g} MB"
        place = cache.incoming_folder() / file.incoming_name
        steps += [
            f"Download ({file.hash_text}{size})\n     {hub.address(file.url)}",
            f"Put it as\n     {place}",
        ]
    if any(file.url is not None for file in missing):
        steps.append(f"Run: medzsad models fetch {name}")
    return "\n".join(f"  {number}. {step}" for number, step in enumerate(steps, start=1))


def prepare(
    name: str,
    files: Iterable[WeightFile],
    *,
    progress: Callable[[WeightFile], Progress] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[WeightFile]:
    """Make ``files`` ready: from the cache's ``incoming`` folder or the hub's own cache, else by download.

    Args:
        name: what the user asked for, to be said in messages.
        files: the files; those that are ready are left alone.
        progress: makes, for a file that is downloaded, the function that its progress is told to.
        say: gets lines about what happens.

    Returns:
        The files that were made ready now.

    Raises:
        Unreachable: if files could not be downloaded; the message says which, and how to put them in place.
        ModelNotReady: if a file is not the expected one.
        OutputNotWritable: if the cache cannot be written.
    """
    done: list[WeightFile] = []
    unreachable: list[tuple[WeightFile, Unreachable]] = []
    for file in files:
        if cache.is_ready(file.name):
            continue
        try:
            if _prepare_one(file, progress, say):
                done.append(file)
        except Unreachable as error:
            unreachable.append((file, error))
    if unreachable:
        reasons = "; ".join(dict.fromkeys(str(error) for _, error in unreachable))
        raise Unreachable(f"{name}: {reasons}. By hand:\n{by_hand([file for file, _ in unreachable], name)}")
    return done


def _prepare_one(
    file: WeightFile,
    progress: Callable[[WeightFile], Progress] | None,
    say: Callable[[str], None] | None,
) -> bool:
    def waiting() -> None:
        if say is not None:
            say(f"{file.name}: another process is getting it; waiting")

    lock = cache.cache_folder() / "downloads" / f"{file.name}.lock"
    with locked(lock, on_wait=waiting):
        if cache.is_ready(file.name):
            return False  # the other process did it
        dropped = dropped_file(file, weight_files()) or hub_file(file)
        if dropped is None:
            path, hashes = download(file, progress=progress(file) if progress is not None else None)
        else:
            path, hashes = dropped, hash_file(dropped)
            wrong = mismatch(file, hashes)
            if wrong is not None:
                raise ModelNotReady(
                    f"{path}: not the file that the catalogue describes ({wrong}); replace or delete it"
                )
        # Only now, for it needs torch.
        from medzsad.zoo.convert import install, recognise
        from medzsad.zoo.user_models import tower_for

        try:
            verified = file.sha256 is not None or file.git_blob is not None
            source = recognise(path, tower=lambda: tower_for(catalogue(), [file.name]))
            install(file, source, hashes, verified=verified)
        except ModelNotReady:
            if dropped is None:
                path.unlink(missing_ok=True)  # complete, but of no use: downloading on would not mend it
            raise
        if dropped is None:
            path.unlink(missing_ok=True)
        elif say is not None:
            say(f"{file.name}: taken from {dropped}, which is no longer needed for it")
        if not verified and say is not None:
            say(f"{file.name}: unverified, for no hash is known; it has sha256 {hashes.sha256}")
        return True


def _described(file: WeightFile) -> str:
    return file.name if file.megabytes is None else f"{file.name} ({file.megabytes:g} MB)"
