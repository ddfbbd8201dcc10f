"""Checks of the ``doctor`` command, one module per kind of problem.

A check is a generator of findings. Checks of a file take its path and the dataset that is open with its sidecar files;
checks of a scene take the scene. They raise ``RasterioError`` or ``SceneReadError`` if the file is damaged.
"""
