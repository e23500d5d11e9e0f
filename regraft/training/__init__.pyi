from .heads import find_head as find_head
from .heads import learning_curve as learning_curve
from .heads import to_keras as to_keras
from .heads import write_leaderboard as write_leaderboard
from .keras_models import load_model as load_model
from .keras_models import save_model as save_model
from .keras_models import start_keras as start_keras
from .metrics import classification_report as classification_report
