"""Imports what the stages take seconds to import, once for all processes that are forked."""

import great_expectations  # noqa: F401
import keras  # noqa: F401
import onnxruntime  # noqa: F401
import tensorflow  # noqa: F401
import tf2onnx  # noqa: F401
