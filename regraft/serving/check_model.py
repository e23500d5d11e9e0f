"""Whether a model file is the one that it should be, whole, and answers on this machine as it did where it was made.

    regraft check-model PATH
    python -m regraft.serving.check_model PATH      with ONNX Runtime, NumPy and Pillow alone

PATH is a model.onnx or a folder with one, such as models/production. Exit status: 0 if every check passed, 1 if one
failed or there is no model. What a file of an earlier version lacks is said, and fails nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft.core.errors import RegraftError, printable, safe_text
from regraft.serving.model_folder import find_model
from regraft.serving.model_look import Look, Missing


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found."""

    name: str
    status: Literal["ok", "note", "failed"]
    words: str

    def __str__(self) -> str:
        """One line, whatever the model says of itself."""
        return f"{'FAILED' if self.status == 'failed' else self.status:7} {self.name:13} {safe_text(self.words)}"


def look_over(path: Path) -> list[Check]:
    """Return what was found of the model at a path, in the order in which it was looked at.

    Raises:
        RegraftError: there is no model.
    """
    look, checks = Look(find_model(path)), []
    steps: list[tuple[str, Callable[[], str]]] = [
        ("sha256", look.sha256),
        ("loads", look.loads),
        ("contract", look.contract),
        ("metadata", look.metadata),
        ("answers", look.answers),
        ("golden photo", look.golden),
    ]
    for name, step in steps:
        checks.append(_passed(name, step))
        if checks[-1].status == "failed" and name in ("loads", "contract", "metadata"):
            break  # what comes after needs it
    return checks


def told(checks: list[Check]) -> str:
    """Return checks as lines for a person, and a last one that says what they come to."""
    failed = [check.name for check in checks if check.status == "failed"]
    end = f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}." if failed else "Every check passed."
    return "\n".join([*map(str, checks), end])


def _passed(name: str, look: Callable[[], str]) -> Check:
    """Make a check of a function that says what it found, or raises."""
    try:
        return Check(name, "ok", look())
    except Missing as missing:
        return Check(name, "note", str(missing))
    except RegraftError as error:
        return Check(name, "failed", str(error))
    except Exception as error:  # a file from anywhere may make ONNX Runtime or NumPy raise anything
        return Check(name, "failed", printable(f"{type(error).__name__}: {' '.join(str(error).split())}"))


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        raise SystemExit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    try:
        checks = look_over(Path(sys.argv[1]))
    except RegraftError as error:
        print(f"check-model stopped: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(told(checks))
    raise SystemExit(any(check.status == "failed" for check in checks))


if __name__ == "__main__":
    main()
