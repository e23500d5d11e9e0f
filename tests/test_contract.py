"""The contract of the project: code = dvc.yaml = flow = params.yaml."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DVC_YAML = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
PARAMS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
STAGES = DVC_YAML["stages"]
# It decides when a stage runs and no byte of an output passes through it, so editing it must not redo every stage.
SEAM = {"tasks/stage.py", "tasks/dvc_seam.py", "tasks/progress.py", "tasks/__init__.py"}
# Read by nothing that makes results: paths are deps and outs themselves, and the machine changes speed only.
NOT_RESULTS = {"paths", "machine"}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> set[Path]:
    """The project's modules that a file imports anywhere, except for type checkers only."""
    tree = _tree(path)
    ignored = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = set()
    for name in names:
        parts = name.split(".")
        # Importing a.b.c runs a/__init__.py and a/b/__init__.py too.
        candidates = [ROOT.joinpath(*parts).with_suffix(".py")]
        candidates += [ROOT.joinpath(*parts[: end + 1], "__init__.py") for end in range(len(parts))]
        files |= {candidate for candidate in candidates if candidate.is_file()}
    return files


def _closure(path: Path) -> set[str]:
    """Every module of the project that runs when a stage does, as in the deps of dvc.yaml."""
    found, waiting = {path}, [path]
    while waiting:
        for file in _imported(waiting.pop()) - found:
            if file.relative_to(ROOT).as_posix() not in SEAM:
                found.add(file)
                waiting.append(file)
    return {file.relative_to(ROOT).as_posix() for file in found}


def _calls(function: ast.FunctionDef) -> list[str]:
    """Names of the functions that the statements of a flow call, in order."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = [(call.lineno, call.func.id) for call in calls if isinstance(call.func, ast.Name)]
    return [name for _, name in sorted(names)]


def _params_used(path: Path) -> set[str]:
    """`params.a.b` in a stage's code as "a.b", and "a" where the whole section is taken."""
    return set(re.findall(r"\bparams\.((?:[a-z_]+)(?:\.[a-z_]+)?)", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_are_exactly_the_modules_it_imports(stage):
    code = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert code == _closure(ROOT / "tasks" / f"{stage}.py")


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_of_a_stage_are_exactly_the_sections_it_uses(stage):
    used = {name for name in _params_used(ROOT / "tasks" / f"{stage}.py") if name.split(".")[0] not in NOT_RESULTS}
    # A stage that takes a single key declares that key alone, so that it is not redone when another one changes.
    assert set(STAGES[stage]["params"]) == {name for name in used if name.split(".")[0] not in used - {name}}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_everywhere(stage):
    assert STAGES[stage]["cmd"] == f"python -m tasks.{stage}"
    functions = [node for node in _tree(ROOT / "tasks" / f"{stage}.py").body if isinstance(node, ast.FunctionDef)]
    decorated = [node.name for node in functions if any(ast.unparse(line) == "stage" for line in node.decorator_list)]
    assert decorated == [stage]
    assert (ROOT / "tests" / "tasks" / f"test_{stage}.py").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_does(stage):
    assert STAGES[stage]["desc"].endswith(".")


def test_the_flow_calls_the_stages_of_dvc_yaml_in_their_order():
    tree = _tree(ROOT / "flows" / "retrain.py")
    (flow,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "retrain"]
    assert _calls(flow) == ["record_data", *STAGES, "promote_model"]


def test_every_stage_module_is_a_stage_of_dvc_yaml():
    with_stage = [path.stem for path in (ROOT / "tasks").glob("*.py") if "@stage" in path.read_text().split("\n")]
    assert sorted(with_stage) == sorted(STAGES)


def test_every_output_is_made_by_one_stage_and_stands_in_params_or_below_the_reports():
    outputs = [out for stage in STAGES.values() for out in [*stage["outs"], *stage.get("metrics", [])]]
    assert len(outputs) == len(set(outputs))
    assert all(re.fullmatch(r"\$\{paths\.[a-z]+\}(/[a-z_]+\.[a-z]+)?", out) for out in outputs)


def test_plots_and_artifacts_name_files_that_stages_write():
    def resolved(name: str) -> str:
        return re.sub(r"\$\{paths\.([a-z]+)\}", lambda match: PARAMS["paths"][match[1]], name)

    written = {resolved(out) for stage in STAGES.values() for out in [*stage["outs"], *stage.get("metrics", [])]}
    plotted = {next(iter(plot)) if isinstance(plot, dict) else plot for plot in DVC_YAML["plots"]}
    assert plotted <= written
    assert {artifact["path"] for artifact in DVC_YAML["artifacts"].values()} <= written


def test_every_setting_has_a_comment():
    lines = [line for line in (ROOT / "params.yaml").read_text().split("\n") if re.match(r"\s+[a-z_0-9]+: \S", line)]
    # Paths and optimizer settings that repeat a name explained a few lines above are the only bare ones.
    bare = [line.split(":")[0].strip() for line in lines if "#" not in line]
    assert bare == []


@pytest.mark.parametrize(
    ("layer", "forbidden"),
    [("regraft", {"prefect", "dvc", "tasks", "flows"}), ("tasks", {"flows"})],
)
def test_imports_run_one_way(layer, forbidden):
    offenders = []
    for path in (ROOT / layer).rglob("*.py"):
        if path.relative_to(ROOT).as_posix() in SEAM:
            continue  # the seam: the modules that know prefect and dvc
        text = path.read_text(encoding="utf-8")
        banned = forbidden | ({"prefect", "dvc"} if layer == "tasks" else set())
        offenders += [
            f"{path.name}: {name}" for name in banned if re.search(rf"^\s*(from|import) {name}\b", text, re.M)
        ]
    assert offenders == []


def test_the_seam_replaces_the_function_that_dvc_runs_a_stage_with():
    import dvc.stage.run

    # tasks/dvc_seam.py puts its own function in this one's place; if DVC moves or changes it, keep the pin.
    assert list(inspect.signature(dvc.stage.run.cmd_run).parameters) == ["stage", "dry", "run_env"]
    source = inspect.getsource(dvc.stage.run.run_stage)
    assert "cmd_run" in source


def test_nothing_is_pickled():
    offenders = [
        path.relative_to(ROOT).as_posix()
        for folder in ("regraft", "tasks", "flows", "benchmarks", "tests/stress")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\b(pickle|joblib|allow_pickle=True|safe_mode=False|shell=True)\b", path.read_text())
    ]
    assert offenders == ["regraft/backbones/torch_file.py"]  # whose unpickler refuses everything but tensors


def test_the_lock_file_pins_every_direct_dependency_and_names_no_registry():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {re.split(r"[=\[]", line)[0].lower().replace("_", "-") for line in lock.split("\n") if "==" in line}
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[<>=;\[ ]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert {name.replace(".", "-") for name in names} <= {name.replace(".", "-") for name in pinned}
    assert "://" not in lock
