"""Production: the model that services read, the ones before it, and the gate in front of it.

In: a new model and what it was trained on, with the figures of both models on the same photos. Out: a verdict in words,
the folder models/production, and its log.
"""

from regraft.rooms import open_door

__getattr__, __dir__, __all__ = open_door(__name__, __file__)
