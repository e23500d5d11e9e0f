from .checks import named_files as named_files
from .checks import problems_that_stop as problems_that_stop
from .checks import validate as validate
from .checks import warnings_of as warnings_of
from .user_rules import read_expectations as read_expectations
