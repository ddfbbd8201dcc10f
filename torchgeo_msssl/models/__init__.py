"""Networks, and the weights that go in and out of them."""

from torchgeo_msssl.models.encoders import create_encoder, feature_width, input_layer
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.report import LoadReport
from torchgeo_msssl.models.weights import Source, export_encoder, load_encoder, read_source, save_encoder

__all__ = [
    'EncoderMetadata',
    'LoadReport',
    'Source',
    'create_encoder',
    'export_encoder',
    'feature_width',
    'input_layer',
    'load_encoder',
    'read_source',
    'save_encoder',
]
