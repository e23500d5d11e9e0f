"""Features: what the frozen backbone says of photos, computed once per view, and what follows from it alone.

In: a data set, views, a trunk and a store. Out: features.arrow, a receipt of what it cost, and checks on the features:
leaks between splits, labels that are likely wrong, outliers, drift.
"""
