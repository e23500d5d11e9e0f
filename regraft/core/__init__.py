"""Core: what every room uses and no room owns - settings, files, errors, checksums, statistics, provenance.

It imports nothing of Regraft.
"""
