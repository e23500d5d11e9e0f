"""Validation: whether photos are what params.yaml and the user's own files expect, and what has drifted.

In: a manifest, thresholds and severities, a user's JSON files, the photos of the model in production.
Out: a report with one entry per expectation, checked by Great Expectations, that names every offender.
"""
