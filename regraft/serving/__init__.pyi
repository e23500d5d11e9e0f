from .promise import Promise as Promise
from .shipped_model import Answer as Answer
from .shipped_model import ShippedModel as ShippedModel
