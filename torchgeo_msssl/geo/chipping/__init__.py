"""Chips of scenes on disk: which windows, in which part of a split, written how."""
