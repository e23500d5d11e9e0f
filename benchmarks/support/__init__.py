"""Temporary projects, photos and the machine: what several benchmarks need."""
