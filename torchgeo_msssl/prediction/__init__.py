"""Predictions of whole scenes, window by window, back on the ground.

:func:`choose_blend` finds out how the windows of a network become a map, :func:`predict_scene` writes it,
:func:`polygonize` makes polygons of it.
"""

from torchgeo_msssl.geo.vectorize.polygons import polygonize
from torchgeo_msssl.prediction.class_map import (
    MapOptions,
    Network,
    PredictionPlan,
    PredictionResult,
    is_done,
    plan,
    predict_scene,
)
from torchgeo_msssl.prediction.qgis_style import class_colors, write_qml
from torchgeo_msssl.prediction.receptive_field import choose_blend
from torchgeo_msssl.prediction.reconstruct import reconstruct_scenes
from torchgeo_msssl.prediction.stitch import RowBandAccumulator, Stitching

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
    'reconstruct_scenes',
    'write_qml',
)
