"""Scores: what the model in production says of photos without labels, day after day.

In: a folder, or a table of paths, and model.onnx. Out: a table with a row per photo, and how far these photos are from
those that the model was trained on.

    asking          the model is asked about photos that it has not seen yet; some vanish meanwhile
    table           a row per photo, and what becomes of it when the photo is gone
    seen_drift      the photos of the last days against production's own
"""
