"""The class that reads labels, chosen by their files."""

from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import UNLABELLED, ClassNames, IgnoreIndex
from torchgeo_msssl.geo.labels.options import LabelSettings
from torchgeo_msssl.geo.labels.raster import RasterLabels
from torchgeo_msssl.geo.labels.source import LabelSource
from torchgeo_msssl.geo.labels.values import check_foreground, infer_class_names, mask_values
from torchgeo_msssl.geo.labels.vector import VectorLabels
from torchgeo_msssl.geo.vector.files import is_vector


def open_labels(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    class_names: ClassNames | None = None,
    *,
    ignore_index: IgnoreIndex = UNLABELLED,
    **options: Any,
) -> LabelSource:
    """Open labels; vectors are read, of rasters the headers.

    Args:
        paths: Mask rasters (files, folders, patterns), or vector files (GeoPackage, GeoJSON, Shapefile, FlatGeobuf,
            GeoParquet).
        class_names: A list of names, or a mapping of names to values; None to follow the labels.
        ignore_index: Value of unlabelled pixels in masks, or values of the labels that mean unlabelled, see
            :func:`~torchgeo_msssl.geo.labels.classes.unlabelled_values`.
        **options: Further fields of :class:`~torchgeo_msssl.geo.labels.options.LabelSettings`.

    Returns:
        The labels.

    Raises:
        ScenesNotFoundError: If nothing is at a path.
        SceneReadError: If a file cannot be read.
        MissingCRSError: If a file has no CRS.
        ConfigurationError: If the options do not fit the files or each other.
    """
    paths = [paths] if isinstance(paths, str | PathLike) else list(paths)
    vectors = [is_vector(path) for path in paths]
    if any(vectors) and not all(vectors):
        raise ConfigurationError(f'labels: {fspath(paths[0])} and others are rasters and vectors; give one kind.')
    if any(vectors):
        return VectorLabels(paths, LabelSettings(class_names=class_names, **options), ignore_index)
    names = infer_class_names(paths, ignore_index) if class_names is None else class_names
    labels = RasterLabels(paths, LabelSettings(class_names=names, **options), ignore_index)
    check_foreground(mask_values(labels.rasters), labels.classes, 'labels')
    return labels
