"""ONNX Runtime tells its maker of every model that it loads, and notes an id of the machine, unless it may not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "ORT_DISABLE_TELEMETRY"
INSTALLED = Path("packaging/regraft_dvc.pth").read_text().splitlines()[0]  # runs at the start of every process


@pytest.mark.parametrize("code", ["import tasks", "import flows", INSTALLED])
def test_onnx_runtime_reports_nothing_unless_the_user_says_so(code):
    def told(**given: str) -> str:
        bare = {name: value for name, value in os.environ.items() if name != NAME} | given
        command = [sys.executable, "-S", "-c", f"{code}; print(__import__('os').environ.get('{NAME}'))"]
        return subprocess.run(command, env=bare, capture_output=True, text=True, check=True).stdout.strip()

    assert told() == "1"
    assert told(ORT_DISABLE_TELEMETRY="0") == "0"


def test_onnx_runtime_reports_nothing_in_the_image():
    assert re.search(rf"^ENV {NAME}=1$", Path("Dockerfile").read_text(), re.M)
