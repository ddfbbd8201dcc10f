"""Offset and scale of Sentinel-2 scenes, from tags, product metadata, names or the date.

Products of processing baseline 04.00 and later (from 2022-01-25, and all of Collection 1) carry an offset of -1000
(https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming). The COGs of
Earth Search have it removed already, except for those of Collection 1 (https://github.com/Element84/earth-search).
"""

import functools
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from torchgeo_msssl.bands import SENTINEL2_OFFSET, SENTINEL2_OFFSET_SINCE
from torchgeo_msssl.geo.open_datasets import Signature, is_remote, signature_of
from torchgeo_msssl.geo.scene import Scene

log = logging.getLogger(__name__)

#: Part of the reason of an offset that follows from the date alone.
GUESSED = 'from the date in the name'
#: Reason of an offset of 0 that neither metadata nor date confirm.
UNKNOWN_OFFSET = 'offset 0: neither metadata nor date give another (set `offset` if there is one)'

_BASELINE_TAGS = ('PROCESSING_BASELINE', 'processing_baseline', 's2:processing_baseline')
_OFFSET_TAGS = ('BOA_ADD_OFFSET', 'RADIO_ADD_OFFSET', 'BOA_ADD_OFFSET_VALUES_LIST', 'RADIO_ADD_OFFSET_VALUES_LIST')
_PRODUCT = re.compile(r'S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_(N\d{4})_')
#: Items of Earth Search: ``S2B_33UXP_20250302_0_L2A``, and ``S2B_T33UXP_20180302T101021_L2A`` in Collection 1.
_EARTH_SEARCH = re.compile(r'(?:^|[/\\_])S2[A-D]_\d{1,2}[C-X][A-Z]{2}_\d{8}_\d+_L2A(?:[/\\._]|$)')
_EARTH_SEARCH_C1 = re.compile(r'(?:^|[/\\_])S2[A-D]_T\d{2}[C-X][A-Z]{2}_\d{8}T\d{6}_L2A(?:[/\\._]|$)')

_METADATA = ('MTD_MSIL2A.xml', 'MTD_MSIL1C.xml')
#: Folders within a product, above which its metadata are.
_INNER = re.compile(r'R\d+m|IMG_DATA|GRANULE|L[12][AC]_T.*', re.IGNORECASE)
#: Size in bytes above which a file is no product metadata.
_LARGEST = 32 * 2**20


@dataclass(frozen=True)
class ProductMetadata:
    """What the XML file of a product says of its digital numbers.

    Attributes:
        path: The XML file.
        offset: Offset in digital numbers, of all bands.
        quantification: Digital numbers per reflectance.
        baseline: Major and minor number of the processing baseline, or None.
        uri: Name of the product, with date and tile, or an empty string.
    """

    path: str
    offset: float
    quantification: float
    baseline: tuple[int, int] | None
    uri: str


def product_metadata(scene: Scene) -> ProductMetadata | None:
    """Find the metadata of a product next to a scene or above it, whatever the name of its folder.

    Args:
        scene: Scene. Date and tile in its path must not contradict the product.

    Returns:
        The metadata, or None without any. No pixel is read.
    """
    if is_remote(scene.path):
        return None
    folder = Path(os.path.abspath(os.path.expanduser(scene.path))).parent
    while _INNER.fullmatch(folder.name):
        folder = folder.parent
    for place in (folder, folder.parent):
        for name in _METADATA:
            path = str(place / name)
            found = _parsed(path, signature_of(path)) if os.path.isfile(path) else None
            if found is not None and not _contradicts(scene, found.uri):
                return found
    return None


@functools.lru_cache(maxsize=256)
def _parsed(path: str, signature: Signature) -> ProductMetadata | None:
    """Read product metadata; None, with a warning, if they cannot be read."""
    try:
        if os.path.getsize(path) > _LARGEST:
            raise ValueError('it is too large')
        text = Path(path).read_text(encoding='utf-8')
        if re.search(r'<!(?:DOCTYPE|ENTITY)', text, re.IGNORECASE):  # entities could expand without end
            raise ValueError('it declares a document type')
        values: dict[str, list[str]] = {}
        for element in ElementTree.fromstring(text.encode()).iter():
            values.setdefault(element.tag.rpartition('}')[2], []).append((element.text or '').strip())
        offsets = [float(text) for tag in ('BOA_ADD_OFFSET', 'RADIO_ADD_OFFSET') for text in values.get(tag, ())]
        scales = [text for tag in ('BOA_QUANTIFICATION_VALUE', 'QUANTIFICATION_VALUE') for text in values.get(tag, ())]
        quantification = float(scales[0]) if scales else 10000.0
        if quantification <= 0 or len(set(offsets)) > 1:
            raise ValueError('its bands have several offsets, or no scale')
    except (OSError, ValueError, ElementTree.ParseError) as error:
        log.warning('%s: ignored the metadata of the product (%s); set `offset` if there is one.', path, error)
        return None
    baseline = parse_baseline(values.get('PROCESSING_BASELINE', [''])[0])
    uri = values.get('PRODUCT_URI', [''])[0]
    return ProductMetadata(path, offsets[0] if offsets else 0.0, quantification, baseline, uri)


def _contradicts(scene: Scene, uri: str) -> bool:
    """Whether date or tile of a scene are not those of a product."""
    date = re.search(r'_(\d{8})T\d{6}_', uri)
    if date and scene.date is not None and scene.date[0].strftime('%Y%m%d') != date[1]:
        return True
    tile = re.search(r'_T(\d{2}[C-X][A-Z]{2})(?:_|\.|$)', uri)
    own = re.search(r'(?:^|_)T(\d{2}[C-X][A-Z]{2})_', Path(scene.path).name)
    return bool(tile and own and tile[1] != own[1])


def sentinel2_offset(scene: Scene) -> tuple[float, str]:
    """Find the offset of a Sentinel-2 scene.

    It comes from the tags, or else the name of an Earth Search item, the metadata of the product, the processing
    baseline in tags or in the name of the product, or the date, which is a guess: see :data:`GUESSED`.

    Args:
        scene: Scene.

    Returns:
        The offset in digital numbers, and its source. No pixel is read.
    """
    tags = {key: value for file in scene.files for key, value in file.tags.items()}
    for tag in _OFFSET_TAGS:
        numbers = re.findall(r'-?\d+(?:\.\d+)?', tags.get(tag, ''))
        if numbers:
            return float(numbers[0]), f'offset {float(numbers[0]):g} from the tag {tag}'
    if _EARTH_SEARCH.search(scene.path):
        return 0.0, 'offset 0: removed before in the COGs of Earth Search'
    product = product_metadata(scene)
    if product is not None:
        return product.offset, f'offset {product.offset:g} from {os.path.basename(product.path)}'
    declared = [tags[tag] for tag in _BASELINE_TAGS if tag in tags]
    named = _PRODUCT.search(f'{tags.get("PRODUCT_URI", "")} {scene.path}')
    baseline = next(filter(None, map(parse_baseline, [*declared, named[1] if named else ''])), None)
    if baseline is not None:
        value = SENTINEL2_OFFSET if baseline >= (4, 0) else 0.0
        return value, f'offset {value:g} from processing baseline {baseline[0]:02d}.{baseline[1]:02d}'
    if _EARTH_SEARCH_C1.search(scene.path):
        return SENTINEL2_OFFSET, f'offset {SENTINEL2_OFFSET:g} of Collection 1'
    if scene.date is not None:
        value = SENTINEL2_OFFSET if scene.date[0].date() >= SENTINEL2_OFFSET_SINCE else 0.0
        return value, f'offset {value:g} {GUESSED} (set `offset` if it was corrected)'
    return 0.0, UNKNOWN_OFFSET


def parse_baseline(text: str) -> tuple[int, int] | None:
    """Parse ``04.00``, ``4.0``, ``N0400`` or ``0400`` as major and minor number; return None for other text."""
    match = re.fullmatch(r'(\d{1,2})\.(\d{1,2})|N?(\d{2})(\d{2})', text.strip())
    if match is None:
        return None
    return int(match[1] or match[3]), int(match[2] or match[4])
