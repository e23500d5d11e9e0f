"""What is known of contents: a photo whose bytes were decoded once, on whatever machine, is not decoded again.

Facts are filed by the SHA-256 of the bytes. Where a photo lies elsewhere, its address and its ETag stand for that
number, once both were seen together. `regraft.store.facts` keeps all this; here is what a scan needs of it.
"""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from regraft.photos.decoder import DecodeLimits, ImageFacts
from regraft.photos.kinds import judge

if TYPE_CHECKING:
    from regraft.photos.elsewhere import Elsewhere
    from regraft.photos.labels_file import Found
    from regraft.photos.scan_facts import FileFacts

Version = tuple[str, str]  # an address and an ETag
_PORTION = 2000  # photos of which the facts are written down together

IMAGE_SCHEMA = pa.schema(
    {
        "format": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "mode": pa.string(),
        "bit_depth": pa.int64(),
        "orientation": pa.int64(),
        "frames": pa.int64(),
        "brightness": pa.float64(),
        "contrast": pa.float64(),
        "sharpness": pa.float64(),
        "entropy": pa.float64(),
        "phash": pa.string(),
        "problem": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class ContentFacts(ImageFacts):
    """What some bytes are, whatever their file is called; `problem` is what the decoder said."""

    start: bytes = b""  # the first ones, where no decoder knew the format
    bytes: int = 0  # how many there are

    def judged(self, path: str) -> tuple[bool, str | None]:
        """Return what `regraft.photos.kinds.judge` says of a file of this name with these bytes."""
        return judge(path, BytesIO(self.start), format_name=self.format, problem=self.problem)

    def image(self) -> ImageFacts:
        """Return the part that a decoder said."""
        return ImageFacts(**{each.name: getattr(self, each.name) for each in fields(ImageFacts)})


class KnownFacts(Protocol):
    """Where facts are kept."""

    def find(self, digests: Collection[str]) -> dict[str, ContentFacts]:
        """Return what is known of contents, by their SHA-256."""
        ...

    def digests_of(self, versions: Collection[Version]) -> dict[Version, str]:
        """Return the SHA-256 of what lay at addresses under an ETag."""
        ...

    def add(self, contents: Mapping[str, ContentFacts], versions: Mapping[Version, str]) -> None:
        """Remember both."""
        ...


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out, and is not written down yet."""

    contents: dict[str, ContentFacts] = field(default_factory=dict)  # by SHA-256
    versions: dict[Version, str] = field(default_factory=dict)  # their SHA-256
    decoded: int = 0  # photos that an inspector was asked about


class Readers(Protocol):
    """Who reads photos for a scan beside this process, which reads what they leave out; `learning` notes the new."""

    def read(
        self, root: Path, files: Mapping[str, "FileFacts | None"], limits: DecodeLimits, learning: "Learning"
    ) -> Iterator[tuple[str, "FileFacts"]]:
        """Yield what files hold, by path, in any order; of those that were too slow before, what is known is given."""
        ...

    def fetch(
        self,
        elsewhere: "Elsewhere",
        photos: "Sequence[tuple[Found, str | None]]",
        limits: DecodeLimits,
        learning: "Learning",
    ) -> Iterator[tuple[str, "FileFacts"]]:
        """Yield what photos at addresses hold, in any order; each is given with the ETag that the table demands."""
        ...


@dataclass(slots=True)
class Learning:
    """One scan: what it finds out is written down in portions, so that an interruption loses little."""

    known: KnownFacts | None = None  # None: nothing is remembered
    readers: Readers | None = None  # None: threads of this process read
    decoded: int = 0  # photos that an inspector was asked about
    _contents: dict[str, ContentFacts] = field(default_factory=dict)
    _versions: dict[Version, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, digests: Collection[str]) -> dict[str, ContentFacts]:
        """Return what was known of contents before this scan."""
        return self.known.find(digests) if self.known else {}

    def digests_of(self, versions: Collection[Version]) -> dict[Version, str]:
        """Return the SHA-256 of what lay at addresses under an ETag."""
        return self.known.digests_of(versions) if self.known else {}

    def learn(self, digest: str, facts: ContentFacts) -> None:
        """Note what an inspector said of some bytes."""
        with self._lock:
            self._contents[digest] = facts

    def name(self, version: Version, digest: str) -> None:
        """Note what lies at an address."""
        with self._lock:
            self._versions[version] = digest

    def count_decoded(self) -> None:
        """Count a photo that an inspector is asked about."""
        with self._lock:
            self.decoded += 1

    def note(self, findings: Findings) -> None:
        """Note what another process found out."""
        with self._lock:
            self._contents |= findings.contents
            self._versions |= findings.versions
            self.decoded += findings.decoded

    def take(self) -> Findings:
        """Return what was noted, and forget it."""
        with self._lock:
            findings = Findings(self._contents, self._versions, self.decoded)
            self._contents, self._versions, self.decoded = {}, {}, 0
        return findings

    def write_portion(self) -> None:
        """Write down what was noted if it is enough; called by one thread."""
        if len(self._contents) + len(self._versions) >= _PORTION:
            self.write()

    def write(self) -> None:
        """Write down all that was noted."""
        with self._lock:
            contents, self._contents = self._contents, {}
            versions, self._versions = self._versions, {}
        if self.known and (contents or versions):
            self.known.add(contents, versions)
