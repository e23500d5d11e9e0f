"""Regraft: retrain an image classifier by transfer learning and pay only for what changed."""

__version__ = "0.1.0"
