"""The contract of the project: code = dvc.yaml = flow = params.yaml."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from regraft.backbones.catalogue import choose_backbone
from regraft.core.config import Params, Paths
from regraft.core.files import fingerprint
from regraft.core.params_file import load_params
from regraft.core.provenance import LIBRARIES
from regraft.photos.views import choose_views
from regraft.training.fine_tune import facts_of
from regraft.training.training_loop import Plan
from tasks import choose_base, export_onnx
from tasks.code_record import RECORD, RECORDER, SEAM, what_decides, what_decides_each
from tests.support.small_project import changed

ROOT = Path(__file__).parents[1]
DVC_YAML = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
PARAMS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = DVC_YAML["stages"]
RECORDED = [name for name in STAGES if name != RECORDER]
BUDGETED = {"cache_features.views", "fine_tune.layers", "fine_tune.epochs"}  # may be `auto`
# No result depends on these: paths are deps and outs themselves, the machine changes speed only.
NOT_RESULTS = {"paths", "machine", "report"}
# Libraries that a stage imports and whose version decides no byte of what it writes.
NO_BYTES = {
    "pydantic": "checks params.yaml and changes no value",
    "fsspec": "copies files",
    "filelock": "lets one process at a time change production",
    "google": "protobuf, whose bytes are fixed by their definition; the graphs are onnx's",
    "httpcore": "fetches photos, which are known by their SHA-256",
    "dask": "settings of distributed",
    "distributed": "hands out work, whose results do not depend on who does it; workers of other sources are refused",
    "xxhash": "computes checksums, which are fixed by their definition",
    "threadpoolctl": "sets the number of threads, as the code says",
}
# A valid value of settings of which neither the double nor the contrary is one.
OTHER_VALUES: dict[str, Any] = {
    "backbone.cut": "block13_add",
    "backbone.engine": "tensorflow",
    "backbone.image_size": 96,
    "backbone.name": "MobileNetV2",
    "backbone.preprocessing": "tf",
    "backbone.weights": None,
    "export_onnx.class_shares": {"cat": 1.0},
    "fine_tune.budget": "quick",
    "fine_tune.layers": "all",
    "fine_tune.mode": "auto",
    "train_head.class_weight": "balanced",
    "train_head.kind": "classic",
}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> set[str]:
    """The names that a file imports anywhere, except for type checkers only: modules, and what is taken from them."""
    tree = _tree(path)
    ignored = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names = set(re.findall(r"""import_module\("([a-z_]+)"\)""", path.read_text(encoding="utf-8")))
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _files(name: str) -> set[Path]:
    """The files of the project that run when a name is imported: a.b.c runs a/__init__.py and a/b/__init__.py too."""
    parts = name.split(".")
    candidates = [ROOT.joinpath(*parts).with_suffix(".py")]
    candidates += [ROOT.joinpath(*parts[: end + 1], "__init__.py") for end in range(len(parts))]
    return {candidate for candidate in candidates if candidate.is_file()}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _closure(stage: str) -> dict[str, Path]:
    """Every module of the project that runs when a stage does, except for the seam and the provenance itself."""
    start = ROOT / "tasks" / f"{stage}.py"
    found, waiting = {_module(start): start}, [start]
    while waiting:
        for file in {file for name in _imported(waiting.pop()) for file in _files(name)}:
            if _module(file) not in {*found, *SEAM, "regraft.core.provenance"}:
                found[_module(file)] = file
                waiting.append(file)
    return found


def _third_party(stage: str) -> set[str]:
    names = {name.split(".")[0] for path in _closure(stage).values() for name in _imported(path)}
    return names - {"regraft", "tasks"} - set(sys.stdlib_module_names)


def _outputs(stage: dict[str, Any]) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in [*stage["outs"], *stage.get("metrics", [])]]


def _calls(function: ast.FunctionDef) -> list[str]:
    """Names of the functions that the statements of a flow call, in order."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = [(call.lineno, call.func.id) for call in calls if isinstance(call.func, ast.Name)]
    return [name for _, name in sorted(names)]


def _params_in(text: str) -> set[str]:
    """`params.a.b` in code as "a.b", and "a" where the whole section is taken."""
    return set(re.findall(r"\bparams\.((?:[a-z_]+)(?:\.[a-z_]+)?)", text))


def _params_used(stage: str) -> set[str]:
    """The settings that a stage reads, itself or by its `StageInputs`; those of `train_base` are of its record."""
    text = (ROOT / "tasks" / f"{stage}.py").read_text(encoding="utf-8")
    used, seen = _params_in(text), set[str]()
    waiting = set() if stage == "train_base" else set(re.findall(r"\binputs\.([a-z_]+)", text))
    (opened,) = [node for node in _tree(ROOT / "tasks" / "stage_inputs.py").body if isinstance(node, ast.ClassDef)]
    members = {node.name: ast.unparse(node) for node in opened.body if isinstance(node, ast.FunctionDef)}
    while waiting := waiting - seen:
        seen |= waiting
        used |= set().union(*(_params_in(members[name]) for name in waiting))
        waiting = {name for each in waiting for name in re.findall(r"\bself\.([a-z_]+)", members[each])} & set(members)
    return used


@pytest.mark.parametrize("stage", RECORDED)
def test_what_decides_a_stage_are_exactly_the_modules_it_imports(stage):
    assert set(what_decides(stage).code) == set(_closure(stage))


@pytest.mark.parametrize("stage", RECORDED)
def test_what_decides_a_stage_are_exactly_the_libraries_it_imports_except_those_that_decide_no_byte(stage):
    imported = _third_party(stage)
    assert imported <= {*LIBRARIES, *NO_BYTES}
    assert set(what_decides(stage).libraries) == {library for name in imported for library in LIBRARIES.get(name, ())}


def test_no_library_is_listed_that_no_stage_imports():
    assert {*LIBRARIES, *NO_BYTES} == set().union(*map(_third_party, RECORDED))


@pytest.mark.parametrize("stage", RECORDED)
def test_a_stage_depends_on_its_own_entry_of_the_record_and_otherwise_on_data_alone(stage):
    assert {RECORD.as_posix(): [stage]} in STAGES[stage]["params"]
    data = ("${paths.raw}", "build/", "models/", "data/", "reports/", "expectations")
    assert [dep for dep in STAGES[stage]["deps"] if not dep.startswith(data)] == []


@pytest.mark.parametrize(
    ("stage", "opened"),
    [
        ("cache_features", {"features.extraction", "features.forward_passes", "photos.dataset", "photos.views"}),
        ("train_base", {"backbones.catalogue", "photos.views", "training.training_loop"}),
        (
            "fine_tune",
            {"backbones.catalogue", "photos.left_out", "photos.sample", "photos.views", "training.training_loop"},
        ),
        ("export_onnx", {"backbones.catalogue", "backbones.trunk", "photos.dataset"}),
    ],
)
def test_what_decides_a_stage_includes_the_modules_that_decide_what_its_inputs_are(stage, opened):
    assert {f"regraft.{name}" for name in opened} <= set(what_decides(stage).code)


def test_the_record_has_an_entry_for_every_other_stage_and_is_made_first():
    assert next(iter(STAGES)) == RECORDER
    assert sorted(what_decides_each()) == sorted(RECORDED)


def test_the_record_depends_on_all_code_and_on_the_versions_that_setup_installs():
    assert STAGES[RECORDER]["deps"] == ["regraft", "tasks", "requirements.lock"]
    assert "__pycache__" in (ROOT / ".dvcignore").read_text().split()  # or every import would change the code


def test_the_record_is_never_restored_from_the_run_cache():
    assert STAGES[RECORDER]["outs"] == [{RECORD.as_posix(): {"persist": True}}]


def test_dvc_yaml_is_read_in_two_minutes():
    lines = (ROOT / "dvc.yaml").read_text().splitlines()
    assert (len(lines) <= 235, max(map(len, lines)) <= 120) == (True, True)


@pytest.mark.parametrize("stage", RECORDED)
def test_the_params_of_a_stage_are_exactly_the_sections_it_uses(stage):
    used = {name for name in _params_used(stage) if name.split(".")[0] not in NOT_RESULTS}
    # A stage that takes a single key declares that key alone, so that it is not redone when another one changes.
    expected = {name for name in used if name.split(".")[0] not in used - {name}}
    if BUDGETED & expected and "fine_tune" not in expected:
        expected.add("fine_tune.budget")  # what `auto` stands for
    assert {name for name in STAGES[stage]["params"] if isinstance(name, str)} == expected


def _settings_of(stage: str) -> dict[str, Any]:
    """The settings that a stage declares, by name: a section is all of its settings."""
    sections = load_params(ROOT / "params.yaml").model_dump(mode="json")
    found = {}
    for name in STAGES[stage]["params"]:
        if isinstance(name, str):
            section, _, key = name.partition(".")
            values = sections[section] if isinstance(sections[section], dict) else {"": sections[section]}
            found |= {f"{section}.{each}".rstrip("."): values[each] for each in ([key] if key else values)}
    return found


def _with_other(name: str, value: Any) -> Params:
    """Valid params in which one setting has another value."""
    if name in OTHER_VALUES:
        value = OTHER_VALUES[name]
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, list):
        value = value[:1] if len(value) > 1 else [0.5]
    else:
        value = value + 1 if isinstance(value, int) else value / 2 if value else 0.5
    params, (section, _, key) = load_params(ROOT / "params.yaml"), name.partition(".")
    return changed(params, **{section: {key: value}}) if key else params.model_copy(update={section: value})


def _without_effect(stage: str, digest_of: Callable[[Params], Any]) -> set[str]:
    """The settings of a stage that a digest does not cover."""
    before, settings = fingerprint(digest_of(load_params(ROOT / "params.yaml"))), _settings_of(stage).items()
    return {name for name, value in settings if fingerprint(digest_of(_with_other(name, value))) == before}


def test_the_record_of_a_base_has_every_setting_but_those_that_are_named_as_deciding_no_byte_of_it():
    named = {f"{section}.{key}" for section, keys in choose_base._ASIDE.items() for key in keys}
    # This one counts in mode `auto` alone.
    named.add("fine_tune.max_minutes")
    named.add("validate_data.max_hash_distance")  # says which photos judge it
    assert _without_effect("choose_base", choose_base._settings) == named


def test_a_base_is_trained_with_settings_of_its_record_alone():
    text = "".join((ROOT / "tasks" / name).read_text() for name in ("train_base.py", "stage_inputs.py"))
    read = set(re.findall(r"\b(?:recorded|params)\.([a-z_]+(?:\.[a-z_]+)?)\b(?!\()", text))
    read = {name for name in read if name.split(".")[0] in Params.model_fields.keys() - NOT_RESULTS}
    declared = {name for name in STAGES["choose_base"]["params"] if isinstance(name, str)}
    assert {name for name in read if not {name, name.split(".")[0]} & declared} == set()


def test_what_the_shipped_file_says_of_its_settings_covers_all_that_decide_its_bytes():
    assert _without_effect("export_onnx", export_onnx._settings) == set()


def test_a_checkpoint_is_of_all_settings_that_decide_a_training():
    def facts(params: Params) -> dict[str, Any]:
        backbone = choose_backbone(params.backbone)
        views = choose_views(params.preprocess, image_size=backbone.image_size, count=params.cache_features.views)
        return facts_of(backbone, views, Plan(params.fine_tune, params.train_head.class_weight, params.seed), files=[])

    elsewhere = {"backbone.engine"}  # in the name of the folder that activations are in: `facts_of_inputs`
    # In the data set's file.
    elsewhere |= {f"preprocess.{name}" for name in ("val_share", "test_share")}
    assert _without_effect("fine_tune", facts) == elsewhere


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
    assert _calls(flow) == ["record_data", *STAGES, "promote_model", "write_report"]


def test_every_stage_module_is_a_stage_of_dvc_yaml():
    with_stage = [path.stem for path in (ROOT / "tasks").glob("*.py") if "@stage" in path.read_text().split("\n")]
    assert sorted(with_stage) == sorted(STAGES)


def test_every_output_is_made_by_one_stage_and_stands_in_params_or_below_the_reports():
    outputs = [out for stage in STAGES.values() for out in _outputs(stage)]
    assert len(outputs) == len(set(outputs))
    outputs.remove(RECORD.as_posix())  # DVC's alone: no person looks for it
    places = {place.as_posix() for place in Paths.constants().values()}
    assert {out for out in outputs if not out.startswith("reports/")} <= places


def test_plots_and_artifacts_name_files_that_stages_write():
    written = {out for stage in STAGES.values() for out in _outputs(stage)}
    plotted = {next(iter(plot)) if isinstance(plot, dict) else plot for plot in DVC_YAML["plots"]}
    assert plotted <= written
    assert {artifact["path"] for artifact in DVC_YAML["artifacts"].values()} <= written


def test_every_setting_has_a_comment():
    lines = [line for line in (ROOT / "params.yaml").read_text().split("\n") if re.match(r"\s+[a-z_0-9]+: \S", line)]
    # Paths and optimizer settings that repeat a name explained a few lines above are the only bare ones.
    bare = [line.split(":")[0].strip() for line in lines if "#" not in line]
    assert bare == []


def _offenders(paths, forbidden):
    return [
        f"{path.name}: {name}"
        for path in paths
        for name in forbidden
        if re.search(rf"^\s*(from|import) {name}\b", path.read_text(encoding="utf-8"), re.M)
    ]


def test_imports_run_one_way():
    assert _offenders((ROOT / "regraft").rglob("*.py"), ["prefect", "dvc", "tasks", "flows"]) == []
    assert _offenders((ROOT / "tasks").rglob("*.py"), ["flows"]) == []


def test_a_stage_knows_neither_prefect_nor_dvc_except_by_the_seam():
    assert _offenders({path for stage in RECORDED for path in _closure(stage).values()}, ["prefect", "dvc"]) == []


def test_imports_between_rooms_run_one_way_and_never_in_a_circle():
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_seam_replaces_the_function_that_dvc_runs_a_stage_with():
    import dvc.stage.run

    # tasks/dvc_seam.py puts its own function in this one's place; if DVC moves or changes it, keep the pin.
    assert list(inspect.signature(dvc.stage.run.cmd_run).parameters) == ["stage", "dry", "run_env"]
    source = inspect.getsource(dvc.stage.run.run_stage)
    assert "cmd_run" in source


def test_nothing_is_pickled_but_weights_by_an_unpickler_that_finds_tensors_only():
    offenders = [
        path.relative_to(ROOT).as_posix()
        for folder in ("regraft", "tasks", "flows", "benchmarks", "tests/stress")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(
            r"\b((import|from) (_?pickle|dill|joblib)|(allow_pickle|shell)=True|safe_mode=False)\b", path.read_text()
        )
    ]
    assert offenders == ["regraft/backbones/torch_backbones.py"]


ROOMS = sorted(path.parent.name for path in (ROOT / "regraft").glob("*/__init__.py") if path.parent.name != "core")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_comes_in_and_what_goes_out(room):
    doc = ast.get_docstring(ast.parse((ROOT / "regraft" / room / "__init__.py").read_text())) or ""
    assert {"In: ", "Out: "} <= set(re.findall(r"In: |Out: ", doc))


def test_params_are_written_as_dvc_writes_them_so_that_setting_one_changes_one_line():
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    text = (ROOT / "params.yaml").read_text()
    params = parse_yaml_for_update(text, "params.yaml")
    assert dumps_yaml(params) == text
    params["fine_tune"]["epochs"] = 3
    changed_lines = set(dumps_yaml(params).splitlines()) - set(text.splitlines())
    assert [line.split("#")[0].strip() for line in changed_lines] == ["epochs: 3"]


def test_params_fit_on_two_screens():
    lines = (ROOT / "params.yaml").read_text().splitlines()
    assert (len(lines) <= 130, max(map(len, lines)) <= 120) == (True, True)
