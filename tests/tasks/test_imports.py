"""What stages import: a night without fine-tuning needs neither TensorFlow nor Keras, whose import takes seconds."""

import json
import subprocess
import sys

from ruamel.yaml import YAML

from tests.support.pipeline import ROOT, STAGES
from tests.support.small_project import changed

_SCRIPT = """
import importlib, json, sys
from pathlib import Path
from regraft.core.params_file import load_params
from tests.support.small_project import quiet
params = load_params(Path("params.yaml"))
for name in sys.argv[1:]:
    getattr(importlib.import_module(f"tasks.{name}"), name).function(params, quiet)
print(json.dumps(sorted({"tensorflow", "keras", "tf2onnx", "torch"} & set(sys.modules))))
"""


def test_all_stages_without_fine_tuning_import_neither_tensorflow_nor_keras(project, small_params):
    params = changed(small_params, fine_tune={"mode": "off"})
    with (project / "params.yaml").open("w") as file:
        YAML().dump(params.model_dump(mode="json"), file)
    command = [sys.executable, "-c", _SCRIPT, *STAGES]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
