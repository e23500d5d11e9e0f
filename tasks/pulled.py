"""Photos that are not here although DVC has a record of them: a fresh clone has them once they were pulled."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regraft.core.errors import InvalidData, MissingPhotos
from tasks.dvc_files import read_locked


@contextmanager
def saying_what_to_pull(raw: Path) -> Iterator[None]:
    """Where photos of the data folder are missing, say how DVC brings them, if it can."""
    try:
        yield
    except MissingPhotos as error:
        if not _is_recorded(raw):
            raise
        raise InvalidData(f"{error} If this is a clone that has not pulled them yet: `dvc pull {raw}`.") from None


def _is_recorded(raw: Path) -> bool:
    """Whether DVC has a record of the data folder, in its own file or in dvc.lock."""
    pointer = raw.with_name(f"{raw.name}.dvc")
    return pointer.is_file() or raw.as_posix() in read_locked().get("validate_data", {}).get("reads", {})
