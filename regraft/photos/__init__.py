"""Photos: from files in a data folder to the pixels that a network is given.

In: a folder of labelled photos, whatever else lies in it, or a table of their addresses. Out: a manifest (one row per
file), a data set (one row per image that is used, with its split), and the views of each image as uint8 RGB arrays.
"""
