"""Drawings and masks: the steps from polygons and lines to pixels, and back."""
