"""Honest measurement of what an encoder has learnt."""

from torchgeo_msssl.evaluation.compare import compare
from torchgeo_msssl.evaluation.encoders import Transfer, transfer
from torchgeo_msssl.evaluation.features import (
    LabelledChips,
    band_statistics,
    extract_features,
    label_chips,
    split_labelled_chips,
)
from torchgeo_msssl.evaluation.online import FrozenProbe
from torchgeo_msssl.evaluation.probes import ProbeResult, knn_probe, linear_probe
from torchgeo_msssl.evaluation.study import Study, write_summary
from torchgeo_msssl.evaluation.threshold import IndexBaseline

__all__ = (
    'FrozenProbe',
    'IndexBaseline',
    'LabelledChips',
    'ProbeResult',
    'Study',
    'Transfer',
    'band_statistics',
    'compare',
    'extract_features',
    'knn_probe',
    'label_chips',
    'linear_probe',
    'split_labelled_chips',
    'transfer',
    'write_summary',
)
