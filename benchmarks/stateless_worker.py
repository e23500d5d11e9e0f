"""A worker of `benchmarks.stateless`, which keeps nothing, and the bucket in which everything lies."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.files import read_json
from regraft.production.gate.verdict import FILE as GATE
from tests.support.faulty_s3 import FaultyServer
from tests.support.pipeline import REGRAFT
from tests.support.project import clean_environment

BUCKET = "s3://faulty"
GIT = (shutil.which("git") or "git",)
DVC = (sys.executable, "-m", "dvc")


@dataclass(frozen=True, slots=True)
class Bucket:
    """The S3 server, and the environment by which it is found."""

    proxy: FaultyServer
    environment: dict[str, str]

    def put(self, photos: pd.DataFrame) -> None:
        """Send photos there, as <class>/<name>."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
        )
        for path, name, digest in zip(photos.path, photos.class_name, photos.digest, strict=True):
            key = f"photos/{name}/{digest[:16]}{Path(path).suffix}"
            client.upload_file(str(path), "faulty", key)


class Worker:
    """A clone in a home of its own, both new."""

    def __init__(self, origin: Path, folder: Path, bucket: Bucket) -> None:
        self.root, self.bucket, self.printed = folder / "clone", bucket, ""
        self.environment = clean_environment(folder / "home") | bucket.environment
        self.environment |= {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "a worker"), ("EMAIL", "worker@example.org"))
        }
        subprocess.run([*GIT, "clone", "--quiet", str(origin), str(self.root)], check=True, env=self.environment)

    def do(self, *command: str, accepted: tuple[int, ...] = (0,)) -> int:
        """Run a command to its end, and return its exit status; another one than accepted ends this process."""
        ended = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True)
        self.printed = ended.stdout + ended.stderr
        if ended.returncode not in accepted:
            sys.exit(f"{' '.join(command)} ended with status {ended.returncode}:\n{self.printed[-4000:]}")
        return ended.returncode

    def regraft(self, *arguments: str, accepted: tuple[int, ...] = (0,)) -> int:
        """Run a command of Regraft's."""
        return self.do(*REGRAFT, *arguments, accepted=accepted)

    def list_photos(self, message: str) -> None:
        """Write the table of what is in the bucket, and push it, as a person does who has new photos."""
        self.regraft("table", f"{BUCKET}/photos", "--replace")
        self.do(*DVC, "add", "--quiet", "data/raw")
        self.do(*DVC, "push", "--quiet", "data/raw.dvc")
        self.do("git", "add", "--all")
        self.do("git", "commit", "--quiet", "-m", message)
        self.do("git", "push", "--quiet", "origin", "HEAD")

    def pull(self) -> int:
        """Bring here what the last night left; exit status 0 also where there was none."""
        return self.regraft("pull")

    def verdict(self) -> dict[str, Any]:
        """Return what the gate said."""
        return read_json(self.root / "reports" / GATE)

    def end(self) -> None:
        """Delete the clone and the home."""
        shutil.rmtree(self.root.parent)
