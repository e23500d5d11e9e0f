"""A small project in git and DVC whose only output is a model, and what becomes of it in registries."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx

from regraft.config import Params
from regraft.files import md5_of, sha256_of
from regraft.params_file import load_params
from regraft.production.registry import Production
from tasks.registries.tell import tell
from tests.support.run_receipts import git
from tests.support.served import colour_graph
from tests.support.small_project import changed

ROOT = Path(__file__).parents[2]
_DVC_YAML = """\
stages:
  export_onnx:
    cmd: python -m tasks.export_onnx
    outs: [models/model.onnx]
artifacts:
  classifier:
    path: models/model.onnx
    type: model
"""
_DVC_LOCK = """\
schema: '2.0'
stages:
  export_onnx:
    cmd: python -m tasks.export_onnx
    outs:
    - path: models/model.onnx
      hash: md5
      md5: {md5}
      size: {size}
"""


def write_dvc_project(root: Path, store: Path) -> None:
    """Begin a project with a DVC remote at `store`, and commit it."""
    for folder in (root / ".dvc", root / "models"):
        folder.mkdir(parents=True)
    git(root, "init", "--quiet", "-b", "main")
    remote = f"[core]\n    remote = store\n    analytics = false\n['remote \"store\"']\n    url = {store}\n"
    (root / ".dvc" / "config").write_text(remote)
    shutil.copy(ROOT / "params.yaml", root)
    (root / "dvc.yaml").write_text(_DVC_YAML)
    (root / ".gitignore").write_text("/models/\n/.dvc/tmp\n/.dvc/cache\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "begin")


def commit_model(root: Path, store: Path, gain: float) -> str:
    """Make another model, dvc.lock in git and the file in the remote, as --commit does; return its SHA-256."""
    path = root / "models" / "model.onnx"
    onnx.save(colour_graph(gain=gain), path)
    md5 = md5_of(path)
    (root / "dvc.lock").write_text(_DVC_LOCK.format(md5=md5, size=path.stat().st_size))
    stored = store / "files" / "md5" / md5[:2] / md5[2:]  # as DVC names it
    stored.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, stored)
    git(root, "add", "dvc.lock")
    git(root, "commit", "--quiet", "-m", f"a model with gain {gain:g}")
    return sha256_of(path)


def promote_model(root: Path) -> Production:
    """Put models/model.onnx into production."""
    production = Production(root / "models" / "production")
    production.promote(root / "models" / "model.onnx", "because of a test", keep=5)
    return production


def told(registry: Any, **settings: Any) -> list[str]:
    """What the project in the current folder is told when a registry is told of its production."""
    return tell(params_with(**{registry: settings}), registry)


def params_with(**registries: Any) -> Params:
    """The parameters of the current folder, with registries; written there too, for processes of their own."""
    from ruamel.yaml import YAML

    yaml, path = YAML(), Path("params.yaml")
    contents = yaml.load(path)
    contents["promote"] |= registries
    yaml.dump(contents, path)
    return changed(load_params(path))


def artifact(repository: Path, out: Path, *options: str) -> str:
    """SHA-256 of what `dvc artifacts get` fetches from a repository."""
    command = [sys.executable, "-m", "dvc", "artifacts", "get", str(repository), "classifier", "-o", str(out), *options]
    subprocess.run(command, cwd=out.parent, check=True, capture_output=True, text=True)
    return sha256_of(out)
