"""Classify photos: what `regraft predict` and `python -m regraft.serving` do.

It needs ONNX Runtime, NumPy and Pillow; pi-heif for HEIC and tqdm for a progress bar if they are there.
"""

import argparse
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.errors import RegraftError

if TYPE_CHECKING:
    from regraft.serving.output import Format
    from regraft.serving.predicting import Predictor

_STATUS = (
    "Exit status: 0 done, also if some photos are bad: each has a row with the reason. 1 not one could be classified."
)
_BY_SUFFIX: dict[str, "Format"] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_INTERRUPTED = 130  # exit status of who is stopped by Ctrl-C


def main(arguments: list[str] | None = None, *, program: str = "python -m regraft.serving") -> int:
    """Classify the photos that arguments name, and return the exit status."""
    options = _parser(program).parse_args(arguments)
    try:
        return _predict(options)
    except RegraftError as error:
        print(f"predict stopped: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads the rows has enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # those of photos are in their rows
        print(f"predict stopped: standard input or output failed ({error.strerror}).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\npredict stopped: interrupted.", file=sys.stderr)
        return _INTERRUPTED


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description="Classify photos with a model.onnx.", epilog=_STATUS)
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model.onnx that Regraft exported")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="photos, folders of photos, or - for a list on standard input"
    )
    parser.add_argument(
        "--format",
        choices=["table", "jsonl", "csv"],
        help="what is written; without it the suffix of --output says, or it is a table",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="where to; without it to standard output")
    parser.add_argument("--top", metavar="K", type=_at_least(1), default=1, help="classes of each photo (default: 1)")
    parser.add_argument(
        "--threshold", metavar="P", type=_share, help="name no class below this probability, whatever the model says"
    )
    parser.add_argument("--workers", metavar="N", type=_at_least(0), default=0, help="threads (default: one per core)")
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=_at_least(1),
        default=120_000_000,
        help="width x height of the largest photo that is decoded (default: 120000000)",
    )
    parser.add_argument("--null", "-0", action="store_true", help="paths in the list end in a zero byte: find -print0")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, found {text!r}")
        return int(text)

    return number


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a probability from 0 to 1, found {text!r}")
    return share


def _predict(options: argparse.Namespace) -> int:
    # Only now: whoever asks for help does not wait for ONNX Runtime.
    from regraft.serving.output import open_writer
    from regraft.serving.photo_files import list_photos
    from regraft.serving.predicting import choose_predictor
    from regraft.serving.shipped_model import ShippedModel

    form: Format = options.format or _BY_SUFFIX.get(options.output.suffix.lower() if options.output else "", "table")
    model = ShippedModel(options.model)
    predictor = choose_predictor(model, threshold=options.threshold, top=options.top, max_pixels=options.max_pixels)
    facts = {"class_names": model.class_names, "top": predictor.top, "has_novelty": model.has_novelty}
    photos = list(list_photos(options.paths, sys.stdin and sys.stdin.buffer, end=b"\0" if options.null else b"\n"))
    # What Pillow thinks of odd metadata is no matter of whoever classifies.
    with (
        warnings.catch_warnings(action="ignore"),
        open_writer(form, options.output, **facts) as write,
        _progress(len(photos), is_wanted=_is_bar_wanted(options)) as on_photo,
    ):
        for row in predictor.rows(photos, workers=options.workers, on_photo=on_photo):
            write(row)
    _say_what_is_missing(predictor, has_threshold=options.threshold is not None)
    print(_summary(predictor.counts), file=sys.stderr)
    return 1 if predictor.counts["bad"] and not predictor.counts["answered"] else 0


def _is_bar_wanted(options: argparse.Namespace) -> bool:
    # Rows that appear on the same screen say how far it is.
    return not options.no_progress and sys.stderr.isatty() and (options.output or not sys.stdout.isatty())


@contextmanager
def _progress(total: int, *, is_wanted: bool) -> Iterator[Callable[[], object]]:
    try:
        from tqdm import tqdm
    except ImportError:
        is_wanted = False
    if not is_wanted:
        yield lambda: None
        return
    with tqdm(total=total, unit="photo") as bar:
        yield bar.update


def _say_what_is_missing(predictor: "Predictor", *, has_threshold: bool) -> None:
    model = predictor.model
    missing = []
    if model.promise is None and not has_threshold:
        if model.no_promise:
            print(f"This model answers everything (--threshold sets a limit): {model.no_promise}.", file=sys.stderr)
        else:
            missing.append("no threshold, so it answers everything (--threshold sets one)")
    if not model.has_novelty:
        missing.append("no output novelty, so nothing is said of it")
    elif model.novel_above is None:
        missing.append("no limit of novelty, so no photo is called novel")
    if missing:
        print(f"This model was exported by an earlier version: {'; '.join(missing)}.", file=sys.stderr)


def _summary(counts: Counter[str]) -> str:
    """Return what became of the photos, such as `3 photos: 2 classified (1 unsure), 1 bad; 1 other file skipped.`."""
    photos = counts["answered"] + counts["bad"]
    remarks = ", ".join(f"{counts[kind]} {kind}" for kind in ("unsure", "novel") if counts[kind])
    words = f"{_count(photos, 'photo')}: {counts['answered']} classified{f' ({remarks})' if remarks else ''}"
    words += f", {counts['bad']} bad" if counts["bad"] else ""
    return words + (f"; {_count(counts['skipped'], 'other file')} skipped." if counts["skipped"] else ".")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
