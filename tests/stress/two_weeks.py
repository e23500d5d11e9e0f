"""Two weeks of nights in fast-forward: what each one does, whom it alarms, and whether it was right to.

    python -m tests.stress.two_weeks [DIR] [--per-class 60] [--settings fine_tune.mode=off]

Each night something happens to the photos or to the disk, and then `regraft retrain` runs once, as it does for a
person. The photos are those of a folder of class folders; some are held back, to arrive later. An alarm is what
automations.yaml sends for the state that the run ended in, and drift. Exit status 1 if one was wrong, or is missing, or
if a model that was made from wrong photos came into production. Undecided nights are told of in the weekly summary.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from ruamel.yaml import YAML

from regraft.converters.demo_data import write_digits
from regraft.production.run_history import Row, read_rows
from tests.stress.full_disk import small_disk
from tests.stress.surroundings import can_mount
from tests.support.machine import describe_machine
from tests.support.pipeline import REGRAFT, ROOT, Project, run, temporary_project

_SETTINGS = ["backbone.image_size=128", "fine_tune.epochs=3", "train_head.learning_curve=[0.5]"]
_CLASSES, _LATER = 5, 0.3  # of each class, this share of the photos arrives later
_STATUS = (0, 1, 2)


@dataclass
class Photos:
    """The data folder, and what may still arrive in it."""

    project: Project
    later: dict[str, list[Path]] = field(default_factory=dict)
    undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def raw(self) -> Path:
        """The data folder."""
        return self.project.raw

    @property
    def classes(self) -> list[str]:
        """The classes that are there."""
        return sorted(path.name for path in self.raw.iterdir() if path.is_dir())

    def of(self, name: str) -> list[Path]:
        """The photos of a class."""
        return sorted((self.raw / name).iterdir())

    def arrive(self, name: str, count: int) -> list[Path]:
        """Let photos of a class arrive."""
        (self.raw / name).mkdir(parents=True, exist_ok=True)
        chosen, self.later[name] = self.later[name][:count], self.later[name][count:]
        return [Path(shutil.copy(photo, self.raw / name / photo.name)) for photo in chosen]

    def move(self, path: Path, to: Path) -> None:
        """Move something, until the next night."""
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
        self.undo.append(lambda: to.rename(path))

    def restore(self) -> None:
        """Take back what was done for one night."""
        while self.undo:
            self.undo.pop()()


@dataclass(frozen=True, slots=True)
class Night:
    """What happens before a run, and whether a person has to be told of it."""

    what: str
    happens: Callable[[Photos], None]
    alarms: bool = False
    keeps: bool = False  # whether production must stay as it is


def grow(photos: Photos) -> None:
    """A few photos of every class."""
    for name in photos.classes:
        photos.arrive(name, 5)


def rename(photos: Photos) -> None:
    """Every photo of a class gets another name."""
    for photo in photos.of(photos.classes[0]):
        photo.rename(photo.with_name(f"renamed-{photo.name}"))


def shrink(photos: Photos) -> None:
    """A fifth of the photos of every class is deleted."""
    for name in photos.classes:
        for photo in photos.of(name)[::5]:
            photo.unlink()


def relabel(photos: Photos) -> None:
    """Half of a class is moved to another one, by mistake."""
    one, other = photos.classes[:2]
    for photo in photos.of(one)[::2]:
        photos.move(photo, photos.raw / other / photo.name)


def drift(photos: Photos) -> None:
    """Photos of a camera that is nearly dark and far away."""
    for name in photos.classes[:3]:
        for path in photos.arrive(name, 12):
            with Image.open(path) as photo:
                small = photo.convert("RGB").resize((60, 60))
            dark = Image.new("RGB", (400, 400), (12, 10, 20))
            dark.paste(small.point([value // 6 for value in range(256)] * 3), (170, 170))
            dark.save(path.with_suffix(".png"))
            path.unlink()
            photos.undo.append(path.with_suffix(".png").unlink)


def new_class(photos: Photos) -> None:
    """A class that was held back arrives."""
    name = next(name for name in photos.later if name not in photos.classes)
    photos.arrive(name, len(photos.later[name]))


def class_gone(photos: Photos) -> None:
    """A class that was there from the first night on is missing."""
    photos.move(photos.raw / next(iter(photos.later)), photos.raw.parent / "gone")


def break_files(photos: Photos) -> None:
    """Many files arrive cut in half."""
    for name in photos.classes:
        for number, photo in enumerate(photos.of(name)[:8]):
            half = photo.with_name(f"half-{number}.jpg")
            half.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
            photos.undo.append(half.unlink)


def empty(photos: Photos) -> None:
    """The data folder is there, and nothing in it: what a disk that is not mounted looks like."""
    photos.move(photos.raw, photos.raw.parent / "aside")
    photos.raw.mkdir()
    photos.undo.append(photos.raw.rmdir)


def unreadable(photos: Photos) -> None:
    """The data folder is a link to a disk that is away."""
    photos.move(photos.raw, photos.raw.parent / "aside")
    photos.raw.symlink_to("/nowhere/photos")
    photos.undo.append(photos.raw.unlink)


def full_disk(photos: Photos) -> None:
    """New photos arrive, and build/ has no room for what is computed of them."""
    grow(photos)
    if can_mount():
        stack = ExitStack()
        stack.enter_context(small_disk(photos.project.root / "build", 20_000))
        photos.undo.append(stack.close)


NIGHTS = [
    Night("the first photos", lambda photos: None),
    Night("nothing", lambda photos: None),
    Night("grow", grow),
    Night("renamed", rename),
    Night("relabelled by mistake", relabel, keeps=True),
    Night("labels put right", lambda photos: None),
    Night("drifted", drift, alarms=True),
    Night("drift gone, a new class", new_class),
    Night("shrink", shrink),
    Night("half files", break_files, alarms=True, keeps=True),
    Night("a class is gone", class_gone, alarms=True, keeps=True),
    Night("it is back", lambda photos: None),
    Night("the folder is empty", empty, alarms=True, keeps=True),
    Night("the disk is away", unreadable, alarms=True, keeps=True),
    Night("the disk is full", full_disk, alarms=True, keeps=True),
    Night("room again", lambda photos: None),
]


def live_through(photos: Photos, nights: list[Night]) -> Iterator[tuple[Night, Row | None, float]]:
    """Run every night, and yield the row of history that it added with the seconds that it took."""
    for night in nights:
        photos.restore()
        night.happens(photos)
        known, began = {row.run for row in _rows(photos)}, time.perf_counter()
        run(
            [*REGRAFT, "retrain"],
            photos.project.root,
            photos.project.environment,
            log=photos.project.root.parent / "night.log",
            accepted=_STATUS,
        )
        seconds = time.perf_counter() - began
        yield night, next((row for row in _rows(photos) if row.run not in known), None), seconds
    photos.restore()


def names_that_alarm() -> set[str]:
    """The names of states of which automations.yaml tells a person."""
    automations = YAML(typ="safe").load((ROOT / "automations.yaml").read_text())["automations"]
    told = [each for each in automations if "message" in each and "posture" not in each["trigger"]]
    return {event.removeprefix("prefect.flow-run.") for each in told for event in each["trigger"]["expect"]}


def _rows(photos: Photos) -> list[Row]:
    return read_rows(photos.project.root / "models" / "production")


def _first_photos(project: Project, source: Path, per_class: int) -> Photos:
    found: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*.*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            found.setdefault(path.parent.name, []).append(path)
    photos = Photos(project)
    for number, name in enumerate(sorted(found, key=lambda name: (-len(found[name]), name))[: _CLASSES + 1]):
        photos.later[name] = found[name][:per_class]
        if number < _CLASSES:
            photos.arrive(name, round(per_class * (1 - _LATER)))
    return photos


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.two_weeks", description="Two weeks of nights.")
    parser.add_argument("folder", type=Path, nargs="?", help="photos, in folders by class; by default digits")
    parser.add_argument("--per-class", type=int, default=60)
    parser.add_argument("--settings", action="append", default=[], help="of params.yaml, as fine_tune.mode=off")
    options = parser.parse_args()
    print(describe_machine())
    print("| night | what happened | verdict | alarm | right | seconds | computed | words |")
    print("|---|---|---|---|---|---|---|---|")
    alarming, wrong, champion = names_that_alarm(), 0, None
    with temporary_project([*_SETTINGS, *options.settings]) as project:
        if options.folder is None:
            write_digits(project.root.parent / "digits")
        source = options.folder or project.root.parent / "digits"
        photos = _first_photos(project, source, options.per_class)
        for number, (night, row, seconds) in enumerate(live_through(photos, NIGHTS), 1):
            drifted = bool(row and row.drift_warned)
            alarm = row is None or row.name in alarming or drifted
            name = (row.name if row else "no row") + (" (drift)" if drifted else "")
            is_right = alarm == night.alarms and not (night.keeps and row and row.champion not in (champion, None))
            champion = row.champion if row and row.champion else champion
            wrong += not is_right
            words = " ".join((row.reason if row else "").split())[:160]
            computed = row.computed if row and row.computed is not None else "-"
            alarm_words = ("yes" if alarm else "-", "yes" if is_right else "NO")
            cells = (number, night.what, name, *alarm_words, f"{seconds:.0f}", computed, words)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"{wrong} nights were not as they should be")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
