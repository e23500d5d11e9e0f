"""The gate: whether a new model may take the place of the one in production.

In: what both models, and the anchor, said of the same test photos. Out: a verdict in words and figures.

    contestants     models that can be asked at all
    comparison      which photos they are compared on, and what came of it
    rule            Promoted, Undecided or Refused
    verdict         the sentence that a person reads first, and gate.json
"""
