"""Export: the one ONNX file that ships, composed and compared with what was trained, and the file in use.

In: what was trained, the frozen graph, the preparation of photos. Out: model.onnx, raw uint8 RGB of any size to
probabilities, and a classifier that runs it.
"""
