"""The gate: whether a new model may replace the one in production.

In: predictions of both models, and of the anchors, for the same test photos. Out: a verdict in words and figures.

    comparison      which photos two models are compared on, and the counts
    rule            Promoted, Undecided or Refused
    judge           the new model against production and the anchors
    verdict         the sentence that a person reads first, and gate.json
"""
