"""Sensors as data: the names, wavelengths and scaling of their bands.

Names are canonical: ``B1`` and ``b01`` are both ``B01``; ``R``, ``Red`` and ``red`` are all
``red``. Reflectance is ``(DN + offset) * scale``.

Sources: ESA Sentinel-2 spectral responses (S2A central wavelengths) and processing baseline 04.00
(https://sentinels.copernicus.eu/web/sentinel/technical-guides/sentinel-2-msi); NASA HLS user guide v2.0
(https://lpdaac.usgs.gov/documents/1698/HLS_User_Guide_V2.pdf); the makers' data sheets for MicaSense
RedEdge-MX and Altum, DJI Mavic 3 Multispectral and Phantom 4 Multispectral, and Parrot Sequoia.
"""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torchgeo_msssl.errors import BandError

#: First day on which Sentinel-2 products carry a radiometric offset of -1000 (baseline 04.00).
SENTINEL2_OFFSET_SINCE = datetime.date(2022, 1, 25)
SENTINEL2_OFFSET = -1000.0

#: Layers that come along in the files of a sensor and are no spectral bands.
AUXILIARY_LAYERS = frozenset({'QA10', 'QA20', 'QA60', 'SCL', 'AOT', 'WVP', 'TCI', 'CLD', 'SNW', 'PROBABILITY',
                              'CLOUDMASK', 'MSK_CLDPRB', 'MSK_SNWPRB', 'MSK_CLASSI_OPAQUE', 'MSK_CLASSI_CIRRUS',
                              'MSK_CLASSI_SNOW_ICE', 'FMASK', 'SZA', 'SAA', 'VZA', 'VAA', 'DATAMASK'})  # fmt: skip

_COLOURS = {
    'b': 'blue', 'blue': 'blue',
    'g': 'green', 'green': 'green',
    'r': 'red', 'red': 'red',
    're': 'rededge', 'rededge': 'rededge',
    'n': 'nir', 'nir': 'nir', 'nearinfrared': 'nir',
    'lwir': 'lwir', 'thermal': 'lwir',
    'alpha': 'alpha', 'a': 'alpha',
}  # fmt: skip
_NUMBERED = re.compile(r'^b0*(\d{1,2})(a?)(?![a-z0-9])', re.IGNORECASE)


@dataclass(frozen=True)
class Band:
    """One spectral band of a sensor.

    Attributes:
        name: Canonical name.
        wavelength: Central wavelength in nanometres.
        scale: Reflectance per digital number (after ``offset`` was added).
        offset: Added to the digital number first.
        common: Colour name (``blue``, ``nir``, …) or None.
    """

    name: str
    wavelength: float
    scale: float
    offset: float = 0.0
    common: str | None = None


@dataclass(frozen=True)
class Sensor:
    """The bands of a sensor in the order in which its products hold them.

    Attributes:
        name: Key in :data:`SENSORS`.
        bands: Bands in order.
        rgb: Names of the three bands that make a natural (or the usual false-colour) picture.
        nodata: Digital number of pixels without data where a file declares none, or None.
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
        """Look a band up by canonical or colour name.

        Args:
            name: Any spelling that :func:`canonical_band_name` understands.

        Returns:
            The band, or None where the sensor has none of that name.
        """
        wanted = canonical_band_name(name)
        for band in self.bands:
            if band.name == wanted:
                return band
        return next((band for band in self.bands if band.common == wanted), None)


def _sensor(
    name: str,
    scale: float,
    rgb: tuple[str, str, str],
    *bands: tuple[str, float] | tuple[str, float, str],
    nodata: float | None = None,
) -> Sensor:
    made = tuple(Band(band[0], band[1], scale, common=band[2] if len(band) == 3 else None) for band in bands)
    return Sensor(name, made, rgb, nodata)


_S2 = (
    ('B01', 442.7), ('B02', 492.4, 'blue'), ('B03', 559.8, 'green'), ('B04', 664.6, 'red'),
    ('B05', 704.1, 'rededge'), ('B06', 740.5), ('B07', 782.8), ('B08', 832.8, 'nir'), ('B8A', 864.7),
    ('B09', 945.1), ('B10', 1373.5), ('B11', 1613.7), ('B12', 2202.4),
)  # fmt: skip
_HLS_L30 = (
    ('B01', 443.0), ('B02', 482.0, 'blue'), ('B03', 561.5, 'green'), ('B04', 654.5, 'red'), ('B05', 865.0, 'nir'),
    ('B06', 1608.5), ('B07', 2200.5), ('B09', 1373.5), ('B10', 10895.0), ('B11', 12005.0),
)  # fmt: skip
_NUMBERED_RGB = ('B04', 'B03', 'B02')
_RGB = ('red', 'green', 'blue')

#: Every sensor the package knows, by name.
#:
#: The orthomosaics of MicaSense cameras are listed by wavelength (blue, green, red, red edge, near infrared),
#: which is what Metashape and Pix4D export; a file whose bands have descriptions overrides any order.
SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        _sensor('sentinel2_l1c', 1e-4, _NUMBERED_RGB, *_S2, nodata=0),
        _sensor('sentinel2_l2a', 1e-4, _NUMBERED_RGB, *(band for band in _S2 if band[0] != 'B10'), nodata=0),
        _sensor('hls_l30', 1e-4, _NUMBERED_RGB, *_HLS_L30, nodata=-9999),
        _sensor('hls_s30', 1e-4, _NUMBERED_RGB, *_S2, nodata=-9999),
        _sensor('micasense_rededge', 1 / 32768, _RGB,
                ('blue', 475.0), ('green', 560.0), ('red', 668.0), ('rededge', 717.0), ('nir', 840.0)),
        _sensor('micasense_altum', 1 / 32768, _RGB,
                ('blue', 475.0), ('green', 560.0), ('red', 668.0), ('rededge', 717.0), ('nir', 842.0),
                ('lwir', 11000.0)),
        _sensor('dji_mavic_3m', 1 / 65535, ('nir', 'red', 'green'),
                ('green', 560.0), ('red', 650.0), ('rededge', 730.0), ('nir', 860.0)),
        _sensor('dji_p4m', 1 / 65535, _RGB,
                ('blue', 450.0), ('green', 560.0), ('red', 650.0), ('rededge', 730.0), ('nir', 840.0)),
        _sensor('parrot_sequoia', 1 / 65535, ('nir', 'red', 'green'),
                ('green', 550.0), ('red', 660.0), ('rededge', 735.0), ('nir', 790.0)),
        _sensor('rgb', 1 / 255, _RGB, ('red', 650.0), ('green', 550.0), ('blue', 450.0)),
        _sensor('rgbn', 1 / 255, _RGB, ('red', 650.0), ('green', 550.0), ('blue', 450.0), ('nir', 840.0)),
    )
}  # fmt: skip


def get_sensor(name: str) -> Sensor:
    """Look a sensor up by name.

    Args:
        name: A key of :data:`SENSORS`; case, spaces and hyphens do not matter.

    Returns:
        The sensor.

    Raises:
        BandError: If there is no such sensor.
    """
    key = re.sub(r'[\s-]+', '_', name.strip().lower())
    if key not in SENSORS:
        msg = f'sensor: {name!r} is not known; choose one of {", ".join(SENSORS)}, or leave it out.'
        raise BandError(msg)
    return SENSORS[key]


def canonical_band_name(text: str) -> str:
    """Bring a band's name into the one spelling that this package compares.

    ``B1``, ``b01`` and ``B1, central wavelength 443 nm`` become ``B01``; ``B8A`` stays;
    ``NIR``, ``Near Infrared`` and ``n`` become ``nir``. Any other name is only stripped.

    Args:
        text: A name as a file or a user writes it.

    Returns:
        The canonical name.
    """
    text = text.strip()
    numbered = _NUMBERED.match(text)
    if numbered:
        number, narrow = numbered.groups()
        return f'B{int(number)}A' if narrow else f'B{int(number):02d}'
    return _COLOURS.get(re.sub(r'[\s_-]+', '', text).lower(), text)


def is_auxiliary(name: str) -> bool:
    """Tell whether a layer is known to be no spectral band (QA60, SCL, cloud probability, alpha, …).

    Args:
        name: Canonical name.

    Returns:
        True for a quality, classification or alpha layer.
    """
    return name.upper() in AUXILIARY_LAYERS or name == 'alpha'


def infer_sensor(names: Sequence[str], filename: str = '') -> Sensor | None:
    """Find the sensor that the band names (and a product's file name) speak of.

    Only what the names prove is concluded: numbered bands are Sentinel-2 (L1C where B10 is among them) unless
    the file name is that of an HLS product, or of a Landsat one, whose sensors are not listed; ``red, green, blue``
    is a plain RGB picture. Several drone cameras share colour names with different wavelengths, so those need to be
    named by the user.

    Args:
        names: Canonical band names of a scene.
        filename: File name of the scene.

    Returns:
        The sensor, or None where the names leave it open.
    """
    spectral = {name for name in names if not is_auxiliary(name)}
    if not spectral:
        return None
    if re.search(r'(?:^|[/\\_])L[COTEM]0[1-9]_', filename):
        return None
    product = re.search(r'HLS\.([LS]30)\.', filename)
    if product:
        sensor = SENSORS[f'hls_{product.group(1).lower()}']
        return sensor if spectral <= set(sensor.names) else None
    for key in ('sentinel2_l2a', 'sentinel2_l1c', 'rgb', 'rgbn'):
        numbered = key.startswith('sentinel2')
        candidate = SENSORS[key]
        if spectral <= set(candidate.names) and (numbered or spectral == set(candidate.names)):
            return candidate
    return None


def rgb_names(names: Sequence[str], sensor: Sensor | None) -> tuple[str, str, str]:
    """Choose three of the given bands for a picture, red first.

    Args:
        names: Canonical names of the bands at hand, at least one.
        sensor: Their sensor, if known.

    Returns:
        The sensor's RGB triple where it is complete; else the colours that are there; else the last, middle
        and first band (bands are listed by rising wavelength as a rule). One or two bands are repeated.
    """
    for triple in (sensor.rgb if sensor else (), _NUMBERED_RGB, _RGB, ('nir', 'red', 'green')):
        if triple and all(name in names for name in triple):
            red, green, blue = triple
            return red, green, blue
    return names[-1], names[len(names) // 2], names[0]


def band_position(name: str) -> tuple[float, str]:
    """Sort key that puts bands in the order of rising wavelength as Sentinel-2 lists them (B8A after B08).

    Args:
        name: Canonical name.

    Returns:
        A key; names that are neither numbered nor colours come last, by letter.
    """
    numbered = _NUMBERED.match(name)
    if numbered:
        return int(numbered[1]) + (0.5 if numbered[2] else 0.0), name
    colours = ('blue', 'green', 'red', 'rededge', 'nir', 'lwir')
    return (100.0 + colours.index(name) if name in colours else 200.0), name
