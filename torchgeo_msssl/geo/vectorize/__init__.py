"""Polygons and rows of plants from class maps."""
