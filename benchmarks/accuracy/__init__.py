"""Accuracy of Regraft and of recipes on photos that no model saw, and how blending decides."""
