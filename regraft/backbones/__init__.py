"""Backbones: pretrained networks, where each can be cut, and the frozen one as an ONNX graph that is ready to run.

In: the section `backbone` of params.yaml. Out: a `Backbone`, which builds the Keras model (RGB 0 to 255 in, pooled
features out), and a `Trunk`, which computes features and activations of prepared images.
"""
