"""Scores: daily predictions of the model in production for photos without labels.

In: a folder, or a table of paths, and model.onnx. Out: a table with a row per photo, and how far these photos are from
those that the model was trained on.
"""
