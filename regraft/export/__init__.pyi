from .classifier import OnnxClassifier as OnnxClassifier
from .compose import build_classifier as build_classifier
from .compose import expected_by_keras as expected_by_keras
from .compose import save_if_equal as save_if_equal
from .scoring import open_probabilities as open_probabilities
from .scoring import probabilities_of as probabilities_of
