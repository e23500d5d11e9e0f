"""The stages of dvc.yaml, one module each, and the seam that runs them."""
