from .checks import check as check
from .checks import write_label_errors as write_label_errors
from .extraction import Extractor as Extractor
from .feature_store import FeatureStore as FeatureStore
from .feature_store import open_feature_store as open_feature_store
from .table import read_features as read_features
from .table import write_features as write_features
