"""Production: the model that services read, the ones before it, and the gate in front of it.

In: a new model and what it was trained on, with the figures of both models on the same photos. Out: a verdict in words,
the folder models/production, and its log.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
