"""Metadata of an encoder."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast, get_args

import torchgeo_msssl
from torchgeo_msssl.bands import SENSORS, get_sensor
from torchgeo_msssl.errors import WeightsError
from torchgeo_msssl.models.matching import Spectrum, match_bands
from torchgeo_msssl.models.stems import Stem

_PER_BAND = ('wavelengths', 'scale', 'offset', 'mean', 'std')


@dataclass(frozen=True)
class EncoderMetadata:
    """How an encoder was trained, and how its input must be normalized.

    Reflectance is ``(DN + offset) * scale``; the network sees ``(reflectance - mean) / std``. The five sequences
    ``wavelengths`` to ``std`` have one value per band, or none if unknown.

    Attributes:
        method: Pretraining method (``fastsiam``, …).
        model: timm name of the encoder.
        bands: Canonical band names in the order of the input channels; empty if unknown.
        wavelengths: Central wavelengths in nanometres.
        scale: Factors from digital numbers to reflectance.
        offset: Added to digital numbers before scaling.
        mean: Means of reflectance.
        std: Standard deviations of reflectance.
        sensor: Key in :data:`torchgeo_msssl.bands.SENSORS`, or None.
        chip_size: Side of the training chips in pixels, or None.
        pixel_size: Side of the training pixels on the ground in metres, or None.
        stem: Stride of the encoder's first layers, see :mod:`torchgeo_msssl.models.stems`; it is not visible in the
            shapes of the tensors.
        version: Version of this package that wrote it.

    Raises:
        WeightsError: If the sequences do not agree in length, or there is no such stem.
    """

    method: str
    model: str
    bands: tuple[str, ...] = ()
    wavelengths: tuple[float | None, ...] = ()
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    sensor: str | None = None
    chip_size: int | None = None
    pixel_size: float | None = None
    stem: Stem = 'standard'
    version: str = torchgeo_msssl.__version__

    def __post_init__(self) -> None:
        """Convert sequences to tuples, and check their lengths."""
        for name in ('bands', *_PER_BAND):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.stem not in get_args(Stem):
            raise WeightsError(
                f'Metadata of {self.model!r}: this version knows no stem {self.stem!r}; update the package.'
            )
        for name in _PER_BAND:
            values = getattr(self, name)
            if values and len(values) != len(self.bands):
                raise WeightsError(
                    f'Metadata of {self.model!r}: {name} has {len(values)} values for {len(self.bands)} bands '
                    f'({", ".join(self.bands)}); give one per band, or none.'
                )

    def spectrum(self) -> Spectrum:
        """Return the bands of the input; sensors of later versions are unknown, names and wavelengths are not."""
        return Spectrum.of(self.bands, SENSORS.get(self.sensor or ''), self.wavelengths)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain types, which ``torch.load(weights_only=True)`` and JSON can read."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create from the output of :meth:`to_dict`; fields of later versions are ignored.

        Raises:
            WeightsError: If ``method`` or ``model`` is missing, or a field has a wrong type.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in known})
        except (TypeError, AttributeError) as error:
            raise WeightsError(f'The metadata of the encoder cannot be read ({error}); export it again.') from error

    def to_header(self) -> dict[str, str]:
        """Convert to the header of a safetensors file, one JSON text per field."""
        return {name: json.dumps(value) for name, value in self.to_dict().items()}

    @classmethod
    def from_header(cls, header: Mapping[str, str] | None) -> Self | None:
        """Create from the header of a safetensors file; None if another program wrote it.

        Raises:
            WeightsError: If a field is not valid JSON.
        """
        if not header or not {'method', 'model'} <= header.keys():
            return None
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls.from_dict({name: json.loads(text) for name, text in header.items() if name in known})
        except json.JSONDecodeError as error:
            raise WeightsError(
                f'The header of the safetensors file cannot be read ({error}); export it again.'
            ) from error


def statistics_by_name(
    metadata: EncoderMetadata, bands: Sequence[str], sensor: str | None = None
) -> tuple[list[float], list[float]] | None:
    """Look up mean and standard deviation of bands by their names in an encoder's metadata.

    Args:
        metadata: Metadata of the encoder.
        bands: Names of bands.
        sensor: Sensor of these bands, if their names do not identify it.

    Returns:
        Mean and standard deviation of each band; None if a band is not in the metadata under the same name (and with
        about the same wavelength), or the metadata have no statistics.
    """
    if not metadata.mean or not metadata.std:
        return None
    source = metadata.spectrum()
    target = Spectrum.of(bands, get_sensor(sensor) if sensor else None)
    found = match_bands(source, target)
    if any(index is None or source.names[index] != name for index, name in zip(found, target.names, strict=True)):
        return None
    indices = cast(list[int], found)
    return [metadata.mean[index] for index in indices], [metadata.std[index] for index in indices]
