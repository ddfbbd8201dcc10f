"""The generated sample area."""

from torchgeo_msssl.geo.sample.area import MANIFEST, SampleArea, sample_area, write_sample_area

__all__ = ('MANIFEST', 'SampleArea', 'sample_area', 'write_sample_area')
