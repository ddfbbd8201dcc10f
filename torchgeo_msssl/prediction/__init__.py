"""Prediction of whole scenes, window by window.

:func:`choose_blend` decides how the windows of a network are combined into a map, :func:`predict_scene` writes the map,
and :func:`~torchgeo_msssl.geo.vectorize.run.vectorize` converts it to polygons.
"""

from torchgeo_msssl.prediction.class_map import MapOptions, Network, PredictionResult, predict_scene
from torchgeo_msssl.prediction.pipeline import WindowPredictor, run_prediction
from torchgeo_msssl.prediction.plan import PredictionPlan, plan
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
    'WindowPredictor',
    'choose_blend',
    'class_colors',
    'plan',
    'predict_scene',
    'reconstruct_scenes',
    'run_prediction',
    'write_qml',
)
