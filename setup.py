"""Installs what changes DVC at the start of its command (tasks/safe_dvc.py), and what keeps ONNX Runtime silent.

All else is in pyproject.toml.
"""

import os
import sys
import sysconfig

from setuptools import Distribution, setup


class WithData(Distribution):
    """Setuptools asks `has_data` before it adds data files to an editable installation, and means this."""

    has_data = Distribution.has_data_files


files = ["packaging/regraft_dvc.pth", "packaging/regraft_dvc.py"]
setup(distclass=WithData, data_files=[(os.path.relpath(sysconfig.get_path("purelib"), sys.prefix), files)])
