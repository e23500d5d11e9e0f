"""The watcher: one event when photos have arrived and writing has settled.

It looks at names, sizes and times only. What was announced last is kept in `.dvc/tmp/regraft`, so photos that arrive
while nobody watches are announced at the next start, and so is what no server was there to hear of. A run that finds
nothing to do ends within seconds, so in doubt a change is announced once more.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import Busy, RegraftError
from regraft.photos.listing import Change, Listing, Settling, list_address, list_folder, read_listing, write_listing

EVENT = "regraft.data.changed"
_KEPT = Path(".dvc", "tmp", "regraft", "watched.parquet")
_IDLE_SHARE = 10  # a look that takes a second is followed by so many seconds without one
_NAP_SECONDS = 0.5
_AWAY_SECONDS = 30.0  # after a server did not answer, until it is asked again

Announce = Callable[[Change], bool]  # tell the server; False if it could not be told


def watch(params: Params, stop: Callable[[], bool], announce: Announce | None = None) -> None:
    """Watch until told to stop; call it in the project's root.

    Args:
        params: `nights.watch`, or else `paths.raw`, is what is watched.
        stop: asked several times a second.
        announce: what tells of a change; without it, an event of the Prefect server.

    Raises:
        Busy: another process watches.
    """
    from filelock import FileLock, Timeout

    _KEPT.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(_KEPT.with_suffix(".lock"), timeout=0):
            _watch(params, stop, announce or _announce)
    except Timeout:
        raise Busy("another process watches this folder already: `regraft serve` does. One is enough.") from None


def _watch(params: Params, stop: Callable[[], bool], announce: Announce) -> None:
    nights, place = params.nights, params.nights.watch or str(params.paths.raw)
    settling, problem, quiet_until = Settling(read_listing(_KEPT, place), nights.settle_seconds), "", 0.0
    while not stop():
        began, pause = time.monotonic(), nights.watch_seconds
        try:
            listing = _listed(params, len(settling.announced))
            pause = max(pause, _IDLE_SHARE * (time.monotonic() - began))
            change = settling.look(listing, began)
            if change and began >= quiet_until:
                if announce(change):
                    settling.announced = listing
                    print(f"watch: {change.words()}", file=sys.stderr, flush=True)
                    write_listing(_KEPT, place, listing)
                else:
                    quiet_until = began + _AWAY_SECONDS
            away = "photos are there, and no Prefect server can be told. It is told later: `regraft serve` starts one."
            found = away if change and began < quiet_until else ""
        except RegraftError as error:
            found = str(error)
        if found and found != problem:  # once, however often one looks
            print(f"watch: {found}", file=sys.stderr, flush=True)
        problem = found
        _sleep(pause, stop)


def _listed(params: Params, files_before: int) -> Listing:
    """List what is watched; RegraftError where that says nothing."""
    watched = params.nights.watch
    listing = list_address(watched) if watched else list_folder(params.paths.raw)
    if files_before and not listing:
        raise RegraftError(
            f"{'what is watched' if watched else params.paths.raw} is empty, and had {files_before:,} files. Is a disk "
            f"not mounted? No run is started for that; `regraft retrain` would stop and say so."
        )
    return listing


def _announce(change: Change) -> bool:
    from flows.prefect_server.events import announce

    return announce(
        EVENT, change.words(), files=change.files, added=change.added, removed=change.removed, changed=change.changed
    )


def _sleep(seconds: float, stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not stop() and (left := end - time.monotonic()) > 0:
        time.sleep(min(_NAP_SECONDS, left))
