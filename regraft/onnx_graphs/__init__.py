"""ONNX graphs as such: converted from Keras, composed, quantised, and in a canonical form.

In: Keras models and graphs. Out: graphs in which equal weights give equal bytes.
Nothing here knows what a backbone or a head is.
"""
