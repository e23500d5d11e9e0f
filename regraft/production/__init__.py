"""Production: the model that services read, the ones before it, and the gate in front of it.

In: a new model and what it was trained on, with the figures of both models on the same photos. Out: a verdict in words,
the folder models/production, and its log.
"""
