"""Sensors as data: the names, wavelengths and scaling of their bands.

Names are canonical: ``B1`` and ``b01`` are both ``B01``; ``R``, ``Red`` and ``red`` are all
``red``. Reflectance is ``(DN + offset) * scale``.

Sources: ESA Sentinel-2 spectral responses (S2A central wavelengths) and processing baseline 04.00
(https://sentinels.copernicus.eu/web/sentinel/technical-guides/sentinel-2-msi); NASA HLS user guide v2.0
(https://lpdaac.usgs.gov/documents/1698/HLS_User_Guide_V2.pdf); USGS Landsat 8-9 Collection 2 Level 2 science
product guide (LSDS-1619) and Level 1 data format control book (LSDS-1822); Planet, PlanetScope product specifications
(SuperDove); the makers' data sheets for MicaSense RedEdge-MX and Altum, DJI Mavic 3 Multispectral and Phantom 4
Multispectral, and Parrot Sequoia.
"""

import datetime
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from torchgeo_msssl.errors import BandError

#: First day on which Sentinel-2 products carry a radiometric offset of -1000 (baseline 04.00).
SENTINEL2_OFFSET_SINCE = datetime.date(2022, 1, 25)
SENTINEL2_OFFSET = -1000.0

#: Layers in the files of a sensor that are not spectral bands, and indices that were computed from these.
AUXILIARY_LAYERS = frozenset(
    {'QA10', 'QA20', 'QA60', 'SCL', 'AOT', 'WVP', 'TCI', 'CLD', 'SNW', 'PROBABILITY', 'CLOUDMASK', 'DATAMASK', 'FMASK'}
    | {'MSK_CLDPRB', 'MSK_SNWPRB', 'MSK_CLASSI_OPAQUE', 'MSK_CLASSI_CIRRUS', 'MSK_CLASSI_SNOW_ICE'}
    | {'SZA', 'SAA', 'VZA', 'VAA', 'TCI_R', 'TCI_G', 'TCI_B'}
    | {'QA_PIXEL', 'QA_RADSAT', 'SR_QA_AEROSOL', 'QA_AEROSOL', 'UDM', 'UDM2'}
    | {'NDVI', 'GNDVI', 'NDRE', 'NDWI', 'MNDWI', 'NDMI', 'NBR', 'NDBI', 'NDSI', 'EVI', 'EVI2', 'SAVI', 'MSAVI', 'OSAVI'}
    | {'LAI', 'FAPAR', 'FCOVER', 'CWC', 'CAB'}
)

#: Names of colours, in the order of wavelength, and their other spellings.
_COLOURS = ('coastal_blue', 'blue', 'green_i', 'green', 'yellow', 'red', 'rededge', 'nir', 'lwir')
_SPELLINGS = {'b': 'blue', 'g': 'green', 'r': 'red', 're': 'rededge', 'n': 'nir', 'nearinfrared': 'nir'}
_SPELLINGS |= {'thermal': 'lwir', 'a': 'alpha', 'alpha': 'alpha'} | {name.replace('_', ''): name for name in _COLOURS}
_NUMBERED = re.compile(r'^(?:sr_)?b0*(\d{1,2})(a?)(?![a-z0-9])', re.IGNORECASE)
#: File names of Landsat products (of OLI the level is group 1), and of surface reflectance of PlanetScope.
_LANDSAT = re.compile(r'(?:^|[/\\_])L[COTEM]0[1-9]_')
_LANDSAT_OLI = re.compile(r'(?:^|[/\\_])L[CO]0[89]_L([12])[A-Z]{2}_')
_PLANETSCOPE = re.compile(r'_AnalyticMS_SR', re.IGNORECASE)


@dataclass(frozen=True)
class Band:
    """One spectral band of a sensor.

    Attributes:
        name: Canonical name.
        wavelength: Central wavelength in nanometres.
        scale: Reflectance per digital number, after ``offset`` has been added.
        offset: Offset in digital numbers.
        common: Colour name (``blue``, ``nir``, …) or None.
    """

    name: str
    wavelength: float
    scale: float
    offset: float = 0.0
    common: str | None = None


@dataclass(frozen=True)
class Sensor:
    """The bands of a sensor in the order of its products.

    Attributes:
        name: Key in :data:`SENSORS`.
        bands: Bands in order.
        rgb: Names of the three bands of a natural-colour (or the usual false-colour) composite.
        nodata: Digital number of pixels without data in files that declare none, or None.
    """

    name: str
    bands: tuple[Band, ...]
    rgb: tuple[str, str, str]
    nodata: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical band names in order."""
        return tuple(band.name for band in self.bands)

    def find(self, name: str) -> Band | None:
        """Return a band by canonical or colour name, in any spelling of :func:`canonical_band_name`, or None."""
        wanted = canonical_band_name(name)
        for band in self.bands:
            if band.name == wanted:
                return band
        return next((band for band in self.bands if band.common == wanted), None)


def _sensor(
    name: str,
    scale: float,
    rgb: tuple[str, str, str],
    wavelengths: Mapping[str, float],
    common: Mapping[str, str] | None = None,
    nodata: float | None = None,
    offset: float = 0.0,
) -> Sensor:
    bands = (Band(band, nm, scale, offset, (common or {}).get(band)) for band, nm in wavelengths.items())
    return Sensor(name, tuple(bands), rgb, nodata)


_S2_NAMES = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12')
_S2_NM = (442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1373.5, 1613.7, 2202.4)
_S2_COMMON = {'B02': 'blue', 'B03': 'green', 'B04': 'red', 'B05': 'rededge', 'B08': 'nir'}
_L1C = dict(zip(_S2_NAMES, _S2_NM, strict=True))
_L2A = {name: nm for name, nm in _L1C.items() if name != 'B10'}
_L30_NAMES = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B09', 'B10', 'B11')
_L30_NM = (443.0, 482.0, 561.5, 654.5, 865.0, 1608.5, 2200.5, 1373.5, 10895.0, 12005.0)
_L30 = dict(zip(_L30_NAMES, _L30_NM, strict=True))
_L30_COMMON = {'B02': 'blue', 'B03': 'green', 'B04': 'red', 'B05': 'nir'}
_OLI_NAMES = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07')
_OLI = dict(zip(_OLI_NAMES, (443.0, 482.0, 561.4, 654.6, 864.7, 1608.9, 2200.7), strict=True))
_PLANETSCOPE_4B = {'blue': 490.0, 'green': 565.0, 'red': 665.0, 'nir': 865.0}
_PLANETSCOPE_8B = {'coastal_blue': 443.0, 'blue': 490.0, 'green_i': 531.0, 'green': 565.0, 'yellow': 610.0}
_PLANETSCOPE_8B |= {'red': 665.0, 'rededge': 705.0, 'nir': 865.0}
_REDEDGE = {'blue': 475.0, 'green': 560.0, 'red': 668.0, 'rededge': 717.0, 'nir': 840.0}
_ALTUM = _REDEDGE | {'nir': 842.0, 'lwir': 11000.0}
_MAVIC_3M = {'green': 560.0, 'red': 650.0, 'rededge': 730.0, 'nir': 860.0}
_P4M = {'blue': 450.0, 'green': 560.0, 'red': 650.0, 'rededge': 730.0, 'nir': 840.0}
_SEQUOIA = {'green': 550.0, 'red': 660.0, 'rededge': 735.0, 'nir': 790.0}
_CAMERA = {'red': 650.0, 'green': 550.0, 'blue': 450.0}
_NUMBERED_RGB, _RGB, _FALSE_COLOUR = ('B04', 'B03', 'B02'), ('red', 'green', 'blue'), ('nir', 'red', 'green')

#: All known sensors by name.
#:
#: The bands of MicaSense cameras are in the order of wavelength (blue, green, red, red edge, near infrared), in which
#: Metashape and Pix4D export orthomosaics. Band descriptions in a file override the order.
SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        _sensor('sentinel2_l1c', 1e-4, _NUMBERED_RGB, _L1C, _S2_COMMON, nodata=0),
        _sensor('sentinel2_l2a', 1e-4, _NUMBERED_RGB, _L2A, _S2_COMMON, nodata=0),
        _sensor('hls_l30', 1e-4, _NUMBERED_RGB, _L30, _L30_COMMON, nodata=-9999),
        _sensor('hls_s30', 1e-4, _NUMBERED_RGB, _L1C, _S2_COMMON, nodata=-9999),
        # reflectance is DN × 2.75e-5 − 0.2, and at the top of the atmosphere (not divided by the sine of the sun's
        # elevation) DN × 2e-5 − 0.1
        _sensor('landsat8_l2', 2.75e-5, _NUMBERED_RGB, _OLI, _L30_COMMON, nodata=0, offset=-0.2 / 2.75e-5),
        _sensor('landsat8_l1', 2e-5, _NUMBERED_RGB, _OLI | {'B09': 1373.4}, _L30_COMMON, nodata=0, offset=-0.1 / 2e-5),
        _sensor('planetscope_4b', 1e-4, _RGB, _PLANETSCOPE_4B, nodata=0),
        _sensor('planetscope_8b', 1e-4, _RGB, _PLANETSCOPE_8B, nodata=0),
        _sensor('micasense_rededge', 1 / 32768, _RGB, _REDEDGE),
        _sensor('micasense_altum', 1 / 32768, _RGB, _ALTUM),
        _sensor('dji_mavic_3m', 1 / 65535, _FALSE_COLOUR, _MAVIC_3M),
        _sensor('dji_p4m', 1 / 65535, _RGB, _P4M),
        _sensor('parrot_sequoia', 1 / 65535, _FALSE_COLOUR, _SEQUOIA),
        _sensor('rgb', 1 / 255, _RGB, _CAMERA),
        _sensor('rgbn', 1 / 255, _RGB, _CAMERA | {'nir': 840.0}),
    )
}


def get_sensor(name: str) -> Sensor:
    """Return a sensor by name.

    Args:
        name: Key of :data:`SENSORS`, in any case, with spaces or hyphens instead of underscores.

    Raises:
        BandError: If there is no such sensor.
    """
    key = re.sub(r'[\s-]+', '_', name.strip().lower())
    if key not in SENSORS:
        msg = f'sensor: unknown sensor {name!r}; choose one of {", ".join(SENSORS)}, or leave it out.'
        raise BandError(msg)
    return SENSORS[key]


def canonical_band_name(text: str) -> str:
    """Return the canonical spelling of a band name from a file or a user.

    ``B1``, ``b01`` and ``B1, central wavelength 443 nm`` become ``B01``; ``B8A`` stays; ``NIR``, ``Near Infrared`` and
    ``n`` become ``nir``. White space around other names is removed.
    """
    text = text.strip()
    numbered = _NUMBERED.match(text)
    if numbered:
        number, narrow = numbered.groups()
        return f'B{int(number)}A' if narrow else f'B{int(number):02d}'
    return _SPELLINGS.get(re.sub(r'[\s_-]+', '', text).lower(), text)


def is_auxiliary(name: str) -> bool:
    """Whether a layer, by canonical name, is not a spectral band (QA60, SCL, cloud probability, alpha, …)."""
    return name.upper() in AUXILIARY_LAYERS or name == 'alpha'


def infer_sensor(names: Sequence[str], filename: str = '') -> Sensor | None:
    """Infer the sensor from band names and the file name of a product.

    Numbered bands are Sentinel-2 (L1C if B10 is one of them), unless the file name is that of an HLS or Landsat
    product, or B5, B6 and B7 come without B8A and B12, and without B8 unless with B10: exports of Landsat 8 and HLS
    have these, at other wavelengths. PlanetScope is identified by the file name. A minority of other layers does not
    matter; they have no scale. ``red, green, blue`` is an ordinary RGB image. Several drone cameras have the same
    colour names at different wavelengths, so the user has to name them.

    Args:
        names: Canonical band names of a scene.
        filename: File name of the scene.

    Returns:
        The sensor, or None if the names do not identify it.
    """
    spectral = {name for name in names if not is_auxiliary(name)}
    if not spectral:
        return None
    if _LANDSAT.search(filename):
        level = _LANDSAT_OLI.search(filename)
        return _if_most(f'landsat8_l{level[1]}', spectral) if level else None
    if _PLANETSCOPE.search(filename):
        fits = spectral <= set(SENSORS['planetscope_4b'].names)
        return _if_most('planetscope_4b' if fits else 'planetscope_8b', spectral)
    product = re.search(r'HLS\.([LS]30)\.', filename)
    if product:
        return _if_most(f'hls_{product.group(1).lower()}', spectral)
    if _is_landsat8(spectral):
        return None
    numbered = {name for name in spectral if _NUMBERED.match(name)}
    foreign = spectral - numbered
    for key in ('sentinel2_l2a', 'sentinel2_l1c'):
        # a foreign layer, such as a DEM, does not cost the others their scale; those of another sensor would
        if numbered <= set(SENSORS[key].names) and len(foreign) < len(numbered) and not foreign & set(_COLOURS):
            return SENSORS[key]
    return next((SENSORS[key] for key in ('rgb', 'rgbn') if spectral == set(SENSORS[key].names)), None)


def _if_most(key: str, spectral: set[str]) -> Sensor | None:
    """Return a sensor if it has more than half of the bands, for instance all but the panchromatic one."""
    return SENSORS[key] if 2 * len(spectral & set(SENSORS[key].names)) > len(spectral) else None


def _is_landsat8(spectral: Set[str]) -> bool:
    """Whether numbered bands are those of exports of Landsat 8, and not of Sentinel-2."""
    if not {'B05', 'B06', 'B07'} <= spectral or spectral & {'B8A', 'B12'}:
        return False
    reflective = {f'B0{number}' for number in range(1, 10)} <= spectral  # without the thermal bands
    return 'B08' not in spectral or 'B10' in spectral or (reflective and 'B11' not in spectral)  # B08 is panchromatic


def likely_sensors(names: Sequence[str], filename: str = '') -> list[str]:
    """Return the sensors that bands may be from, to advise the user.

    Args:
        names: Canonical band names of a scene.
        filename: File name of the scene.

    Returns:
        Keys of :data:`SENSORS`, the one with the fewest further bands first. Only sensors of Landsat for numbered bands
        that those of Sentinel-2 cannot be, or for file names of Landsat.
    """
    spectral = {name for name in names if not is_auxiliary(name)}
    found = [key for key, known in SENSORS.items() if spectral and spectral <= set(known.names)]
    if _LANDSAT.search(filename) or _is_landsat8(spectral):
        found = [key for key in found if key.startswith(('landsat8', 'hls_l30'))]
    level = _LANDSAT_OLI.search(filename)
    if _LANDSAT.search(filename):
        found = [f'landsat8_l{level[1]}'] if level else []
    return sorted(found, key=lambda key: len(SENSORS[key].names))


def rgb_names(names: Sequence[str], sensor: Sensor | None) -> tuple[str, str, str]:
    """Choose three bands for a figure, red first.

    Args:
        names: Canonical names of the available bands, at least one.
        sensor: Their sensor, if known.

    Returns:
        The RGB bands of the sensor if they are available, or else a common triple, or else the last, middle and first
        band (usually in the order of wavelength). One or two bands are repeated.
    """
    for triple in (sensor.rgb if sensor else (), _NUMBERED_RGB, _RGB, _FALSE_COLOUR):
        if triple and all(name in names for name in triple):
            red, green, blue = triple
            return red, green, blue
    return names[-1], names[len(names) // 2], names[0]


def band_position(name: str) -> tuple[float, str]:
    """Return the sort key of a canonical name: by wavelength like Sentinel-2 (B8A after B08), other names last."""
    numbered = _NUMBERED.match(name)
    if numbered:
        return int(numbered[1]) + (0.5 if numbered[2] else 0.0), name
    return (100.0 + _COLOURS.index(name) if name in _COLOURS else 200.0), name
