"""Trained segmentation networks in files that other programs run."""
