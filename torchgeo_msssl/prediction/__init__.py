"""Predictions of whole scenes, window by window, back on the ground.

:func:`choose_blend` finds out how the windows of a network become a map, :func:`predict_scene` writes it,
:func:`polygonize` makes polygons of it.
"""

from torchgeo_msssl.geo.vectorize.polygons import polygonize
from torchgeo_msssl.prediction.receptive import choose_blend, receptive_margin, total_stride
from torchgeo_msssl.prediction.reconstruct import reconstruct_scenes
from torchgeo_msssl.prediction.stitch import RowBandAccumulator, Stitching
from torchgeo_msssl.prediction.style import class_colors, write_qml
from torchgeo_msssl.prediction.writer import (
    MapOptions,
    Network,
    PredictionPlan,
    PredictionResult,
    is_done,
    plan,
    predict_scene,
)

__all__ = (
    'MapOptions',
    'Network',
    'PredictionPlan',
    'PredictionResult',
    'RowBandAccumulator',
    'Stitching',
    'choose_blend',
    'class_colors',
    'is_done',
    'plan',
    'polygonize',
    'predict_scene',
    'receptive_margin',
    'reconstruct_scenes',
    'total_stride',
    'write_qml',
)
