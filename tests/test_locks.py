"""The lock files: what pyproject.toml asks for, every file of it by its SHA-256, and no index's address."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
BY_DEFAULT = {"demo", "s3", "cluster"}
DEFAULT = [*PYPROJECT["project"]["dependencies"], *(need for extra in sorted(BY_DEFAULT) for need in EXTRAS[extra])]
LOCKS = [ROOT / "requirements.lock", *sorted((ROOT / "locks").glob("*.lock"))]
ENTRY = re.compile(r"(\S.*?)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")
PLATFORMS = [
    {"python_version": python[:4], "python_full_version": python, "sys_platform": system, "platform_machine": machine}
    | {"platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system]}
    for python in ("3.11.2", "3.11.9", "3.12.5", "3.13.1")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"))
]
GOES_WITH = {"build": PYPROJECT["build-system"]["requires"]}


def pinned(*names: str) -> list[Requirement]:
    """Every entry of lock files."""
    texts = [(ROOT / name).read_text() for name in names]
    return [Requirement(entry) for text in texts for entry, _ in ENTRY.findall(text)]


def chosen(entries: list[Requirement], platform: dict[str, str]) -> dict[str, set[str]]:
    """The versions of each package that pip takes on a platform."""
    versions: dict[str, set[str]] = {}
    for entry in entries:
        if entry.marker is None or entry.marker.evaluate(platform):
            versions.setdefault(canonicalize_name(entry.name), set()).add(str(entry.specifier).removeprefix("=="))
    return versions


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_entry_is_one_version_with_the_digests_of_its_files(path: Path) -> None:
    text = path.read_text()
    assert ENTRY.sub("", text) == ""
    entries = [Requirement(entry) for entry, _ in ENTRY.findall(text)]
    assert entries
    assert [entry.name for entry in entries if not re.fullmatch(r"==[\w.!+]+", str(entry.specifier))] == []
    assert ("://" in text, "index" in text, "@" in text) == (False, False, False)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: "-".join(list(platform.values())[1:4]))
def test_on_each_platform_the_lock_has_one_version_of_each_package_and_pyproject_allows_it(platform) -> None:
    versions = chosen(pinned("requirements.lock"), platform)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    wanted = [Requirement(text) for text in DEFAULT]
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate(platform)]
    missing = [
        str(need)
        for need in wanted
        if not any(need.specifier.contains(version) for version in versions.get(canonicalize_name(need.name), set()))
    ]
    assert missing == []
    takes_cpu_only = (platform["sys_platform"], platform["platform_machine"]) == ("linux", "x86_64")
    assert [name in versions for name in ("tensorflow-cpu", "tensorflow")] == [takes_cpu_only, not takes_cpu_only]


def test_there_is_a_lock_file_for_every_extra_that_is_not_installed_by_default() -> None:
    expected = set(EXTRAS) - BY_DEFAULT | set(GOES_WITH)
    assert {path.stem for path in LOCKS} == expected | {"requirements"}


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - BY_DEFAULT | set(GOES_WITH)))
def test_what_an_extra_asks_for_is_in_its_lock_file_or_installed_by_default(extra: str) -> None:
    versions = chosen(pinned("requirements.lock", f"locks/{extra}.lock"), PLATFORMS[0])
    for need in map(Requirement, GOES_WITH.get(extra) or EXTRAS[extra]):
        assert any(need.specifier.contains(version) for version in versions[canonicalize_name(need.name)])
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_photos_that_are_not_for_commercial_use_are_not_installed_by_default() -> None:
    assert "elpv-dataset" not in (ROOT / "requirements.lock").read_text()
    assert "elpv-dataset==" in (ROOT / "locks/solar-cells.lock").read_text()


def test_tools_of_developers_are_not_installed_by_default() -> None:
    names = {entry.name for entry in pinned("requirements.lock")}
    assert {"prefect", "dvc", "onnxruntime", "asyncpg", "s3fs"} <= names
    assert not names & {"pytest", "ruff", "pyright", "playwright", "moto", "uv", "boto3", "flask"}


def test_a_package_with_extras_is_pinned_under_its_name_too() -> None:
    """pip 23 asks for both, and refuses what is not pinned."""
    entries = pinned("requirements.lock")
    plain = {entry.name for entry in entries if not entry.extras}
    assert {"sqlalchemy", "fsspec"} <= {entry.name for entry in entries if entry.extras} <= plain


def test_the_page_of_licences_names_every_direct_dependency_in_the_version_of_the_lock() -> None:
    rows = re.findall(r"^\| ([a-z][\w.-]*) \| (\d[\w.]*) \| (.+?) \|", (ROOT / "docs/licences.md").read_text(), re.M)
    versions = chosen(pinned("requirements.lock", "locks/dev.lock"), PLATFORMS[4])
    assert [name for name, version, _ in rows if version not in versions[name]] == []
    wanted = [Requirement(text) for text in [*DEFAULT, *EXTRAS["dev"]]]
    here = [need for need in wanted if need.marker is None or need.marker.evaluate(PLATFORMS[4])]
    assert {canonicalize_name(need.name) for need in here} <= {name for name, _, _ in rows}
    assert [name for name, _, licence in rows if licence == "not said"] == []
