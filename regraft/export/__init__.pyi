from .classifier import OnnxClassifier as OnnxClassifier
from .compose import build_classifier as build_classifier
from .compose import save_if_equal as save_if_equal
