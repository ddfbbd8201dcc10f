"""Lightning callbacks that evaluate a task, or print the progress of a run."""

from torchgeo_msssl.callbacks.frozen_probe import FrozenProbe
from torchgeo_msssl.callbacks.index_baseline import IndexBaseline
from torchgeo_msssl.callbacks.map_scores import MapScores
from torchgeo_msssl.callbacks.pixel_baselines import PixelBaselines

__all__ = ('FrozenProbe', 'IndexBaseline', 'MapScores', 'PixelBaselines')
