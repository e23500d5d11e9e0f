"""Serving: the shipped file in use, with ONNX Runtime, NumPy and Pillow alone, so that a service needs no more.

In: model.onnx and photos. Out: class names with their probabilities, and whether the file had better say nothing.
"""
