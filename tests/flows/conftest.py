"""Toy projects and one Prefect server for the tests of the flows; nothing is written outside of temporary folders."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.prefect_server import IMPATIENT, Server, running_server
from tests.support.project import clean_environment
from tests.support.toy import FLOW, KINDS, Toy, build_toy


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of every command that a test starts."""
    return clean_environment(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Callable[..., Toy]:
    """Return a toy project by kind and by the runner that brought it up to date, or None; to be copied, not changed."""

    @cache
    def build(kind: str, made_by: str | None) -> Toy:
        if made_by:
            toy = build(kind, None).copy(tmp_path_factory.mktemp("toy"))
            made = toy.bring_up_to_date(made_by)
            assert made.status == 0, made.output
            toy.forget_runs()
            return toy
        folder = tmp_path_factory.mktemp("toy") / "project"
        folder.mkdir()
        toy = build_toy(folder, environment)
        for command in KINDS[kind]:
            toy.succeed(*command)
        return toy

    return lambda kind, made_by=None: build(kind, made_by)  # one build however it is asked for: all have the same code


@pytest.fixture(params=["git"], scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    """A project lies in a git repository; what has to do with git asks for both kinds."""
    return request.param


@pytest.fixture
def make_toy(toys: Callable[..., Toy], kind: str, tmp_path: Path) -> Iterator[Callable[..., Toy]]:
    """Return a toy project of one's own, new or brought up to date by a runner."""
    made: list[Toy] = []

    def make(made_by: str | None = None) -> Toy:
        made.append(toys(kind, made_by).copy(tmp_path / str(len(made))))
        return made[-1]

    yield make
    for toy in made:
        toy.end()


@pytest.fixture
def new_toy(make_toy: Callable[..., Toy]) -> Toy:
    """A toy project in which nothing has run."""
    return make_toy()


@pytest.fixture
def finished_toy(make_toy: Callable[..., Toy]) -> Toy:
    """A toy project in which everything is up to date."""
    return make_toy(FLOW)


@pytest.fixture
def another_numpy(tmp_path: Path) -> dict[str, str]:
    """Variables of a command that finds another version of NumPy installed, as after pip; `second` imports it."""
    folder = tmp_path / "site" / "numpy-9.9.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9\n")
    return {"PYTHONPATH": str(folder.parent)}


@pytest.fixture(scope="session")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server of the tests' own."""
    with running_server(tmp_path_factory.mktemp("server"), environment | IMPATIENT) as server:
        yield server
