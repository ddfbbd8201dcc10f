"""What makes a Parquet file a GeoParquet file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def geoparquet_metadata(projjson: Mapping[str, Any], bounds: Sequence[float]) -> dict[str, str]:
    """Metadata of a table whose column ``geometry`` holds polygons as WKB.

    Args:
        projjson: CRS of the polygons, as PROJJSON.
        bounds: ``(left, bottom, right, top)`` of all of them.

    Returns:
        Metadata of the table's schema (https://geoparquet.org/releases/v1.0.0/).
    """
    about = {'encoding': 'WKB', 'geometry_types': ['Polygon'], 'crs': projjson, 'bbox': list(bounds)}
    return {'geo': json.dumps({'version': '1.0.0', 'primary_column': 'geometry', 'columns': {'geometry': about}})}
