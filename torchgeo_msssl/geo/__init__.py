"""Pixels on the ground: grids, scenes, statistics and files, without torch."""
