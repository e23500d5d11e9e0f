"""Training: heads on features, and the top of the backbone or all of it on activations or pixels.

In: features, activations, or views of photos, with labels and the sections `train_head` and `fine_tune` of params.yaml.
Out: Keras models, learning curves, and in words what was done and why.
"""
