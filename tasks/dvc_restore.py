"""Proof that the model in production could be brought back: a copy of it is restored, compared, opened, and answers."""

import tempfile
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.production.records import Records
from tasks.dvc_files import file_in_cache, read_locked


def prove_restore(root: Path, params: Params) -> str:
    """Restore the model in production to a temporary folder and let it answer; return a sentence about it.

    Raises:
        RegraftError: what is in production is damaged, or no whole copy of it is left.
    """
    from regraft.serving.shipped_model import ShippedModel

    records = Records(params.paths.production)
    standing = records.standing()
    if standing.problem:
        raise RegraftError(standing.problem)
    digest = standing.digest
    if digest is None:
        return "No model is in production, so none was restored."
    with tempfile.TemporaryDirectory(prefix="regraft-restore-") as folder:
        restored = Path(folder, "model.onnx")
        made = read_locked(root).get("export_onnx", {}).get("writes", {}).get(params.paths.onnx.as_posix(), {})
        sources = {"DVC's cache": file_in_cache(root, str(made.get("md5"))), "versions/": records.version_of(digest)}
        for name, path in sources.items():
            if _copied(path, restored, digest):
                ShippedModel(restored)  # which is asked about a picture
                return f"The model in production ({digest[:12]}) was restored from {name}, has its bytes, and answers."
    raise RegraftError(
        f"no copy of the model in production ({digest[:12]}) is left, neither in DVC's cache nor in "
        f"{records.versions}. It is whole where it is: copy {records.model} to a safe place, then `regraft retrain` "
        "and `dvc push`."
    )


def _copied(path: Path, target: Path, digest: str) -> bool:
    """Whether the file is the model that is looked for; then it is copied."""
    try:
        target.write_bytes(path.read_bytes())
    except OSError:
        return False
    return sha256_of(target) == digest
