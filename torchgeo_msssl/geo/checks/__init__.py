"""Checks of scenes before they are used: one kind of trouble a module."""
