"""What a process says while it imports TensorFlow. Each is a process of its own: what is filtered is its stderr."""

import subprocess
import sys
from pathlib import Path

UNWANTED = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n"
    "I0000 00:00:1.5 7 port.cc:153] oneDNN custom operations are on. You may see slightly different results.\\n"
)
BLOCK = "import os; from tasks.startup import _without_unwanted_lines\nwith _without_unwanted_lines():\n    "


def run(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)


def test_the_import_of_tensorflow_and_the_patch_of_tf2onnx_say_nothing(root: Path) -> None:
    script = (
        "from tasks.startup import quieten_libraries; quieten_libraries()\n"
        "import keras; from keras.src.export import tf2onnx_lib; tf2onnx_lib.patch_tf2onnx()\n"
        "import tensorflow; print(tensorflow.__spec__.loader.__class__.__name__)"
    )
    done = run(root, script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SourceFileLoader\n", "")


def test_other_lines_come_through(root: Path) -> None:
    done = run(root, f"{BLOCK}os.write(2, b'{UNWANTED}an error\\n')\nos.write(2, b'later\\n')")
    assert done.stderr == "an error\nlater\n"


def test_the_last_words_before_a_crash_come_through(root: Path) -> None:
    done = run(root, f"{BLOCK}os.write(2, b'{UNWANTED}this processor has no AVX\\n'); os.abort()")
    assert (done.returncode < 0, done.stderr) == (True, "this processor has no AVX\n")


def test_an_error_in_the_import_is_the_callers(root: Path) -> None:
    done = run(root, f"{BLOCK}raise ImportError('no such library')")
    assert done.stderr.endswith("ImportError: no such library\n")


def test_without_grep_everything_comes_through(root: Path) -> None:
    done = run(root, f"import os; os.environ['PATH'] = ''\n{BLOCK}os.write(2, b'{UNWANTED}')")
    assert "oneDNN custom operations are on" in done.stderr
