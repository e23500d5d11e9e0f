"""reports/report.html and model_card.md: views of a run, written after the stages and, in the flow, after the gate.

    regraft report      writes them again

They are no outputs of DVC. Its first screen has the gate's verdict, the date and the revision of the code, which are no
results of a stage; as an output it would be stale or redo a stage whenever one of them changed. Whatever it shows is in
the files that it reads, so it can be made again at any time. No byte of any output passes through this module.
"""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.config import Params
from regraft.core.errors import Damaged
from regraft.core.files import fingerprint, read_json, sha256_of, write_json
from regraft.core.params_file import load_params
from regraft.photos.elsewhere import elsewhere_of
from regraft.production.exclusive import refreshed
from regraft.reports.first_screen import Circumstances
from regraft.reports.model_card import FILE, write_model_card
from regraft.reports.pages import pages_of, write_html
from regraft.reports.sources import sources_of
from tasks.project import enter_project
from tasks.score_photos import REPORT as SCORES

_DRAWN = Path(".dvc", "tmp", "regraft", "pages")
_NAMED = 5  # changed files that the page names


def write_report() -> Path:
    """Write page and model card of the project in the current folder, and return the path of the page."""
    params = load_params(enter_project() / "params.yaml")
    path = page_of(params)
    write_html(path, sources_of(params), _circumstances(params))
    write_card(params)
    return path


def write_card(params: Params) -> None:
    """Write the model card alone, which draws nothing and takes a tenth of a second."""
    path = params.paths.reports / FILE
    write_model_card(path, sources_of(params), _circumstances(params), params.report.card)


def refresh_report() -> bool:
    """Write the page unless nothing that it shows has changed since; return whether it was written.

    A run that had nothing to do leaves the page alone, since it takes seconds to draw. Without any results there is no
    page: a model may be rolled back where none was trained. Afterwards nobody needs the photos that a run fetched.
    """
    params = load_params(enter_project() / "params.yaml")
    try:
        return _refresh(params)
    finally:
        elsewhere_of(params).trim()


def _refresh(params: Params) -> bool:
    page, card = page_of(params), params.paths.reports / FILE
    if not (params.paths.reports / "metrics.json").exists():
        return False
    if page.exists() and card.exists() and page.stat().st_mtime > max(map(_changed_at, _shown(params))):
        return False
    write_report()
    return True


def pages_to_publish(stage_name: str, params: Params) -> dict[str, str]:
    """Return a stage's pages as Markdown by key.

    They are drawn once for each version of the stage in dvc.lock: a run in which the stage is up to date publishes them
    again, and drawing takes seconds.
    """
    path = _DRAWN / f"{stage_name}.json"
    version = fingerprint([_locked(stage_name), [sha256_of(file) for file in _code()]])
    drawn = _drawn_before(path)
    if drawn.get("version") != version:
        drawn = {"version": version, "pages": pages_of(stage_name, sources_of(params))}
        write_json(path, drawn)
    return drawn["pages"]


def pages_of_stopped(stage_name: str, params: Params) -> dict[str, str]:
    """Return the pages of a stage that stopped: DVC removes what a stage wrote before it runs again, so they are new.

    Raises:
        FileNotFoundError: it stopped before it had anything to show.
    """
    return pages_of(stage_name, sources_of(params))


def page_of(params: Params) -> Path:
    """Return where the page is."""
    return params.paths.reports / "report.html"


def _shown(params: Params) -> list[Path]:
    """The files that the page is drawn from."""
    reports, production = params.paths.reports, refreshed(params.paths.production)
    # What was scored has a page of its own.
    results = [path for path in reports.iterdir() if path.suffix in (".json", ".csv") and path.name != SCORES]
    state = [production / "model.onnx", production / "log.jsonl", Path("dvc.lock"), Path("params.yaml")]
    return [*results, *state, *_code()]


def _drawn_before(path: Path) -> dict[str, Any]:
    """Return the pages that were drawn last; nothing where they are missing or damaged, since they are drawn anew."""
    try:
        drawn = read_json(path, "version", "pages")
    except (FileNotFoundError, Damaged):
        return {}
    return drawn


def _changed_at(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _code() -> list[Path]:
    reports = Path(__file__).parents[1] / "regraft" / "reports"
    return sorted([*reports.glob("*.py"), *reports.glob("templates/*")])


def _locked(stage_name: str) -> dict[str, Any]:
    """Return what dvc.lock says of a stage; nothing where it says nothing."""
    try:
        return YAML(typ="safe").load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"][stage_name]
    except (OSError, YAMLError, KeyError, TypeError):
        return {}


def _circumstances(params: Params) -> Circumstances:
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return Circumstances(written=written, data=_data_version(params), code=_code_version())


def _data_version(params: Params) -> str:
    """Return the version of the photos that the results come from, as DVC names it."""
    raw = params.paths.raw.as_posix()
    for dep in _locked("validate_data").get("deps", []):
        if dep["path"] == raw:
            return f"{raw}, MD5 {dep['md5'].removesuffix('.dir')} in dvc.lock"
    return f"{raw}; DVC has recorded no version of it"


def _code_version() -> str:
    """Return the revision in git, and which of its files have been edited since."""
    revision = _git("rev-parse", "--short=12", "HEAD").strip()
    if not revision:
        return "not in git"
    edited = [line[3:] for line in _git("status", "--porcelain", "--untracked-files=no").splitlines()]
    if not edited:
        return f"git {revision}"
    more = f" and {len(edited) - _NAMED} more" if len(edited) > _NAMED else ""
    return f"git {revision}, and not committed: {', '.join(edited[:_NAMED])}{more}"


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    ended = subprocess.run([git, *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    return ended.stdout if ended.returncode == 0 else ""
