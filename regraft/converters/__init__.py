"""Converters: from what other tools write to the table of photos, labels.csv or labels.parquet.

In: a folder of photos, a bucket, or an export of a labelling tool or a library of data sets; nobody trusts it. Out: a
table with one row per photo, photos as files beside it where they were inside the source, and what was left out.
"""
