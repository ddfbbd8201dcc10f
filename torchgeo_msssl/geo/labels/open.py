"""The class that reads labels, chosen by their files."""

from collections.abc import Iterable, Sequence
from os import PathLike, fspath

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import ClassNames
from torchgeo_msssl.geo.labels.raster import RasterLabels
from torchgeo_msssl.geo.labels.source import LabelSource
from torchgeo_msssl.geo.labels.vector import VectorLabels
from torchgeo_msssl.geo.vector.files import is_vector


def open_labels(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    class_names: ClassNames | None = None,
    *,
    column: str | None = None,
    layer: str | None = None,
    buffer: float = 0.0,
    background: bool | None = None,
    extent: str | PathLike[str] | None = None,
    ignore_index: int = 255,
    priority: Sequence[str] = (),
    all_touched: bool = False,
) -> LabelSource:
    """Open labels; vectors are read, of rasters the headers.

    Args:
        paths: Mask rasters (files, folders, patterns), or vector files (GeoPackage, GeoJSON, Shapefile, FlatGeobuf,
            GeoParquet).
        class_names: A list of names, whose index is the value, or a mapping of names to values, see
            :mod:`torchgeo_msssl.geo.labels.classes`. Optional for vectors, see :class:`VectorLabels`.
        column: Vectors: column with the class, as name or number.
        layer: Vectors: layer of each file.
        buffer: Vectors: metres by which lines and points are widened to each side.
        background: Whether ground without a label is the background class, else it is unlabelled. Default for rasters:
            false; for vectors see :class:`VectorLabels`.
        extent: Polygons of the surveyed ground; outside of it everything is unlabelled.
        ignore_index: Value of unlabelled pixels.
        priority: Vectors: classes that lie on top of the others, the uppermost first.
        all_touched: Vectors: burn every pixel that is touched.

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
        msg = f'labels: {fspath(paths[0])} and others are rasters and vectors; give one kind.'
        raise ConfigurationError(msg)
    if any(vectors):
        return VectorLabels(
            paths, class_names, column, layer, buffer, background, extent, ignore_index, priority, all_touched
        )
    vector_options = {
        'column': column,
        'layer': layer,
        'buffer': buffer,
        'priority': priority,
        'all_touched': all_touched,
    }
    for option, given in vector_options.items():
        if given:
            raise ConfigurationError(
                f'{option}: is for vector files, and {fspath(paths[0])} is a raster; leave it out.'
            )
    if class_names is None:
        msg = f'class_names: name the values in {fspath(paths[0])}, for example [background, vine].'
        raise ConfigurationError(msg)
    return RasterLabels(paths, class_names, background, extent, ignore_index)
