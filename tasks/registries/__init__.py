"""Registries that are told what is in production, where params.yaml asks for it: MLflow's, and git tags of GTO.

They come after a promotion and can neither undo nor hinder one. Each works in a process of its own, with a limit of
time; what goes wrong there is a warning of the run, and the next run tries again.
"""
