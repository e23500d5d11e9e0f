from .checks import check as check
from .checks import write_label_errors as write_label_errors
from .extraction import extract_missing as extract_missing
from .extraction import keys_of as keys_of
from .extraction import open_feature_store as open_feature_store
from .table import read_features as read_features
from .table import write_features as write_features
