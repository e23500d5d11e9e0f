import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from regraft.core.errors import InvalidParams, RegraftError
from regraft.core.params_file import load_params

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def changed(root: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """A function that writes the project's params.yaml with one change and returns its path."""

    def write(change: Change) -> Path:
        contents = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))
        change(contents)
        path = tmp_path / "params.yaml"
        YAML(typ="safe").dump(contents, path)
        return path

    return write


def setting(section: str, key: str, value: object) -> Change:
    return lambda contents: contents[section].update({key: value})


def test_the_projects_own_params_are_valid(root):
    assert load_params(root / "params.yaml").paths.raw == Path("data/raw")


def test_params_cannot_be_changed(root):
    params = load_params(root / "params.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        params.fine_tune.epochs = 1  # type: ignore[misc]


def test_1e_5_is_a_number_as_it_is_for_dvc(root, tmp_path):
    text = re.sub(r"(?m)^(fine_tune:[\s\S]*?learning_rate:) \S+", r"\1 1e-5", (root / "params.yaml").read_text())
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert load_params(path).fine_tune.learning_rate == 1e-5


def test_a_whole_number_will_do_for_a_fraction(changed):
    assert load_params(changed(setting("train_head", "label_smoothing", 0))).train_head.label_smoothing == (0,)


@pytest.mark.parametrize("choice", ["auto", 32, 331])
def test_image_size_is_auto_or_a_number(changed, choice):
    assert load_params(changed(setting("backbone", "image_size", choice))).backbone.image_size == choice


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("fine_tune", "epochz", 3), r"fine_tune\.epochz: unknown key.*one of: .*epochs.*spelling"),
        (lambda all: all.update(pathes=1), r"pathes: unknown key.*one of: seed, paths.*spelling"),
        (lambda all: all["fine_tune"].pop("epochs"), r"fine_tune\.epochs: missing\. Add it"),
        (lambda all: all.pop("promote"), r"promote: missing\. Add it"),
        (lambda all: all.update(machine=None), r"machine: expected the keys workers.*Found: None"),
        (
            setting("fine_tune", "epochs", "many"),
            r"fine_tune\.epochs: expected a whole number, or auto\. Found: 'many'",
        ),
        (setting("fine_tune", "epochs", 2.5), r"fine_tune\.epochs: expected a whole number, or auto.*Found: 2\.5"),
        (setting("fine_tune", "epochs", True), r"fine_tune\.epochs: expected a whole number, or auto\. Found: True"),
        (setting("fine_tune", "epochs", 0), r"fine_tune\.epochs: expected greater than or equal to 1\. Found: 0"),
        (
            setting("fine_tune", "mode", "sometimes"),
            r"fine_tune\.mode: expected 'off', 'auto' or 'always'.*'sometimes'",
        ),
        (setting("fine_tune", "learning_rate", "1e-3"), r"fine_tune\.learning_rate: expected a valid number.*'1e-3'"),
        (setting("fine_tune", "learning_rate", float("nan")), r"fine_tune\.learning_rate: expected a finite number"),
        (setting("fine_tune", "learning_rate", float("inf")), r"fine_tune\.learning_rate: expected a finite number"),
        (setting("train_head", "label_smoothing", 1), r"train_head\.label_smoothing: expected less than 1\. Found: 1"),
        (setting("train_head", "kind", "mlp"), r"train_head\.kind: expected .linear. or .classic.*Found: .mlp."),
        (
            setting("backbone", "image_size", 16),
            r"backbone\.image_size: expected 'auto' or greater than or equal to 32",
        ),
        (
            setting("backbone", "preprocessing", "caffee"),
            r"backbone\.preprocessing: expected 'auto', 'none', 'tf', 'torch' or 'caffe'\. Found: 'caffee'",
        ),
        (setting("backbone", "image_size", "large"), r"backbone\.image_size: expected 'auto'.*Found: 'large'"),
        (setting("paths", "raw", "/data"), r"paths\.raw: expected a path inside the project.*'/data'"),
        (
            setting("paths", "raw", "data/../../x"),
            r"paths\.raw: expected a path inside the project.*'data/\.\./\.\./x'",
        ),
        (setting("paths", "raw", "."), r"paths\.raw: expected a path inside the project.*'\.'"),
        (setting("paths", "raw", 5), r"paths\.raw: expected a path inside the project.*Found: 5"),
        (setting("preprocess", "val_share", 0.9), r"val_share \+ test_share below 1.*Found: 0\.9 \+ 0\.15"),
        (
            lambda all: all["validate_data"].update(max_pixel=1),
            r"validate_data\.max_pixel: unknown key\. Expected one of: max_pixels, .*classes\. Remove it or",
        ),
        (lambda all: all["check_features"].pop("leaks"), r"check_features\.leaks: missing\. Add it"),
        (
            setting("check_features", "leaks", "fatal"),
            r"check_features\.leaks: expected 'error', 'warn', 'note' or 'off'\. Found: 'fatal'",
        ),
        (
            setting("promote", "floors", "warn"),
            r"promote\.floors: expected the keys accuracy, .* with their values\. Found: 'warn'",
        ),
        (setting("validate_data", "classes", []), r"validate_data\.classes: expected .*list of different values"),
        (setting("validate_data", "classes", ["cat", "cat"]), r"validate_data\.classes: .*list of different values"),
        (
            setting("validate_data", "classes", ["cat", 1]),
            r"validate_data\.classes: expected a valid string.*Found: 1",
        ),
        (
            setting("validate_data", "classes", "cat"),
            r"validate_data\.classes: expected null or a list of names\. Found: 'cat'",
        ),
        (lambda all: all.update(seed=-1), r"seed: expected greater than or equal to 0\. Found: -1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected_and_found(changed, change, message):
    path = changed(change)
    with pytest.raises(InvalidParams, match=rf"(?s){re.escape(str(path))} has \d setting\(s\) to fix:.*{message}"):
        load_params(path)


def test_classes_are_named_as_folders_are_whatever_the_accent_is_made_of(changed):
    path = changed(setting("validate_data", "classes", ["pin\u0303a", "dog"]))
    assert load_params(path).validate_data.classes == ("pi\u00f1a", "dog")


@pytest.mark.parametrize("choice", [16, "large"])
def test_a_wrong_image_size_is_one_setting_to_fix_and_not_two(changed, choice):
    with pytest.raises(InvalidParams, match=r"has 1 setting\(s\) to fix"):
        load_params(changed(setting("backbone", "image_size", choice)))


SECRET = "hid/den+Secret1"
WITH_A_SECRET = [
    f"sftp://me:{SECRET}@host/x",
    f"s3://key:{SECRET}@bucket/x",
    f"s3://{SECRET}@bucket/x",
    f"s3://key/{SECRET}@bucket",
    f"simplecache::s3://key:{SECRET}@bucket/x",
    f"zip://inside.zip::https://user:{SECRET}@host/a.zip",
    f"s3://bucket/x?token={SECRET}",
    f"abfs://container/x?sas={SECRET}",
    f"s3://bucket/x?AWSAccessKeyId={SECRET}",
    f"s3://bucket/x#{SECRET}",
    f"s3://bucket/x;token={SECRET}",
    f"S3://key:{SECRET}@bucket/x",
    f"s3://key%3A{SECRET}%40bucket/x",
    f"s3://key:{SECRET}/bucket",
    f"key:{SECRET}@host/x",
    f"/mnt/x?token={SECRET}",
    f"s3://bucket/x\n://{SECRET}@",
]


@pytest.mark.parametrize("address", WITH_A_SECRET)
def test_what_could_be_a_secret_in_the_address_of_the_shared_store_is_refused_and_not_repeated(changed, address):
    with pytest.raises(InvalidParams, match=r"machine\.shared_store: .*credentials.*Found: \(not shown\)") as stop:
        load_params(changed(setting("machine", "shared_store", address)))
    assert "den+Secret1" not in str(stop.value)


@pytest.mark.parametrize("address", [address for address in WITH_A_SECRET if "://" in address])
def test_an_address_in_the_wrong_place_is_not_repeated_either(changed, address):
    for change in (setting("paths", "raw", [address]), setting("machine", "shared_store", [address])):
        with pytest.raises(InvalidParams) as stop:
            load_params(changed(change))
        assert "den+Secret1" not in str(stop.value)


@pytest.mark.parametrize("before", ["\t", "shared_store: a\n  "])
def test_a_line_that_is_no_yaml_is_not_repeated(tmp_path, before):
    path = tmp_path / "params.yaml"
    path.write_text(f"machine:\n  {before}shared_store: s3://key:{SECRET}@bucket/x\n")
    with pytest.raises(InvalidParams, match=r"is not valid YAML: .* in line [23]\. Fix that line") as stop:
        load_params(path)
    assert "den+Secret1" not in str(stop.value)


@pytest.mark.parametrize(
    "url", ["http://host/x", "github://owner:repo@/x", "data:,x", "zip://a.zip", "nowhere://x", " "]
)
def test_what_machines_cannot_fill_together_is_no_shared_store(changed, url):
    with pytest.raises(InvalidParams, match=r"machine\.shared_store: expected an address such as s3://bucket/folder"):
        load_params(changed(setting("machine", "shared_store", url)))


@pytest.mark.parametrize("url", ["s3://bucket/folder", "sftp://host:22/x", "/mnt/shared", "file:///mnt/fotos-ü", None])
def test_a_shared_store_without_a_secret_is_taken(changed, url):
    assert load_params(changed(setting("machine", "shared_store", url))).machine.shared_store == url


def test_every_wrong_setting_is_named_at_once(changed):
    def change(contents):
        contents["fine_tune"].update(epochs=0, mode="never")
        contents["machine"].pop("workers")

    with pytest.raises(InvalidParams) as error:
        load_params(changed(change))
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == [
        "machine.workers",
        "fine_tune.mode",
        "fine_tune.epochs",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [1", r"is not valid YAML: .*line 1.*Fix that line"),
        ("seed: 1\nseed: 2", r"is not valid YAML: .*duplicate key.*Fix that line"),
        ("", r"params\.yaml: expected .*Found: None"),
        ("- seed", r"params\.yaml: expected .*Found: \['seed'\]"),
        ("1: x", r"to fix"),
    ],
)
def test_a_file_that_is_no_set_of_params_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InvalidParams, match=rf"(?s){re.escape(str(path))} .*{message}"):
        load_params(path)


def test_text_that_is_not_utf_8_is_refused_by_name(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"seed: \xff")
    with pytest.raises(InvalidParams, match=r"params\.yaml is not valid YAML: .*utf-8"):
        load_params(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidParams, match=r"params\.yaml does not exist\. Run this in the project's root"):
        load_params(tmp_path / "params.yaml")


OWN = ["build/dataset.parquet", "models/head.npz", "models/production/log.jsonl", "models/production/versions/x.onnx"]
OWN += ["data/splits.csv", "reports/gate.json", "receipts/x.json", "expectations/x.json", "params.yaml"]


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the name of a socket is short


def lead_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = [*((name, os.mkfifo) for name in OWN), (OWN[0], bind), (OWN[0], lead_to_a_device)]


@pytest.mark.parametrize(("name", "place"), KINDS)
def test_what_would_be_waited_for_in_the_place_of_an_own_file_is_named(
    changed: Callable[[Change], Path], name: str, place: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = changed(lambda _: None)
    path = params.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    monkeypatch.chdir(path.parent)
    place(path)
    with pytest.raises(RegraftError, match=rf"{name} must be a file, and is a named pipe, a socket or a device"):
        load_params(params)


def test_folders_that_a_person_has_linked_to_another_disk_are_as_if_they_were_here(
    changed: Callable[[Change], Path], tmp_path: Path
) -> None:
    params = changed(lambda _: None)
    for name in ("models", "reports", "build"):
        (tmp_path / "disk" / name).mkdir(parents=True)
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    assert load_params(params)
    os.mkfifo(tmp_path / "disk" / "reports" / "gate.json")
    with pytest.raises(RegraftError, match=r"reports/gate\.json must be a file"):
        load_params(params)


def test_settings_of_a_former_version_are_read_and_each_that_differed_is_told_once(root, tmp_path, capsys):
    path = tmp_path / "params.yaml"
    contents = YAML(typ="safe").load((root / "params.yaml").read_text())
    contents["paths"] |= {"manifest": "build/manifest.parquet", "reports": "pages"}
    YAML().dump(contents, path)
    assert load_params(path) == load_params(root / "params.yaml")
    told = capsys.readouterr().err
    assert "paths.reports: reports holds, and no longer yours: it has one place now" in told
    assert "remove them: paths.manifest." in told
    load_params(path)
    assert capsys.readouterr().err == ""


def test_limits_beside_a_severity_of_an_earlier_version_leave_the_severity(changed, capsys):
    def earlier(contents):
        contents["check_features"]["leaks"] = {"expected": 0.1, "max": 0.3, "severity": "note"}
        contents["train_head"]["patience"] = 12

    assert load_params(changed(earlier)).check_features.leaks == "note"
    told = capsys.readouterr().err
    assert "check_features.leaks.max: 0.02 holds, and no longer yours" in told
    assert "remove them: check_features.leaks.expected, train_head.patience." in told
