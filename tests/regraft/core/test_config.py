import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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


def test_1e_5_is_a_number_as_it_is_for_dvc(root, tmp_path):
    text = re.sub(r"(?m)^(fine_tune:[\s\S]*?learning_rate:) \S+", r"\1 1e-5", (root / "params.yaml").read_text())
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert load_params(path).fine_tune.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("fine_tune", "epochz", 3), r"fine_tune\.epochz: unknown key.*one of: .*epochs.*spelling"),
        (lambda all: all.update(pathes=1), r"pathes: unknown key.*one of: seed, paths.*spelling"),
        (lambda all: all["fine_tune"].pop("epochs"), r"fine_tune\.epochs: missing\. Add it"),
        (lambda all: all.update(machine=None), r"machine: expected the keys workers.*Found: None"),
        (setting("fine_tune", "epochs", 2.5), r"fine_tune\.epochs: expected a whole number, or auto.*Found: 2\.5"),
        (setting("fine_tune", "epochs", 0), r"fine_tune\.epochs: expected greater than or equal to 1\. Found: 0"),
        (setting("fine_tune", "learning_rate", "1e-3"), r"fine_tune\.learning_rate: expected a valid number.*'1e-3'"),
        (setting("fine_tune", "learning_rate", float("nan")), r"fine_tune\.learning_rate: expected a finite number"),
        (setting("train_head", "kind", "mlp"), r"train_head\.kind: expected .linear. or .classic.*Found: .mlp."),
        (setting("backbone", "image_size", "large"), r"backbone\.image_size: expected 'auto'.*Found: 'large'"),
        (setting("paths", "raw", "/data"), r"paths\.raw: expected a path inside the project.*'/data'"),
        (setting("paths", "raw", "data/../../x"), r"paths\.raw: expected a path inside the project.*/x'"),
        (setting("preprocess", "val_share", 0.9), r"val_share \+ test_share below 1.*Found: 0\.9 \+ 0\.15"),
        (setting("promote", "floors", "warn"), r"promote\.floors: expected the keys accuracy, .*Found: 'warn'"),
        (setting("validate_data", "classes", ["cat", "cat"]), r"validate_data\.classes: .*list of different values"),
        (setting("validate_data", "classes", "cat"), r"validate_data\.classes: expected null or a list.*Found: 'cat'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected_and_found(changed, change, message):
    path = changed(change)
    with pytest.raises(InvalidParams, match=rf"(?s){re.escape(str(path))} has \d setting\(s\) to fix:.*{message}"):
        load_params(path)


def test_classes_are_named_as_folders_are_whatever_the_accent_is_made_of(changed):
    path = changed(setting("validate_data", "classes", ["pin\u0303a", "dog"]))
    assert load_params(path).validate_data.classes == ("pi\u00f1a", "dog")


def test_a_wrong_image_size_is_one_setting_to_fix_and_not_two(changed):
    with pytest.raises(InvalidParams, match=r"has 1 setting\(s\) to fix"):
        load_params(changed(setting("backbone", "image_size", 16)))


SECRET = "hid/den+Secret1"
WITH_A_SECRET = [
    f"sftp://me:{SECRET}@host/x",
    f"s3://key:{SECRET}@bucket/x",
    f"s3://{SECRET}@bucket/x",
    f"zip://inside.zip::https://user:{SECRET}@host/a.zip",
    f"s3://bucket/x?token={SECRET}",
    f"s3://bucket/x#{SECRET}",
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


@pytest.mark.parametrize("url", ["http://host/x", "nowhere://x", " "])
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
        ("- seed", r"params\.yaml: expected .*Found: \['seed'\]"),
    ],
)
def test_a_file_that_is_no_set_of_params_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InvalidParams, match=rf"(?s){re.escape(str(path))} .*{message}"):
        load_params(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidParams, match=r"params\.yaml does not exist\. Run this in the project's root"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("place", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_would_be_waited_for_in_the_place_of_an_own_file_is_named(changed, place):
    params = changed(lambda _: None)
    path = params.parent / "disk" / "gate.json"
    path.parent.mkdir()
    (params.parent / "reports").symlink_to(path.parent)  # a folder that a person has linked to another disk will do
    assert load_params(params)
    place(path)
    with pytest.raises(
        RegraftError, match=r"reports/gate\.json must be a file, and is a named pipe, a socket or a dev"
    ):
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
