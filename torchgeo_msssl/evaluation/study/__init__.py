"""Studies: the same training again and again, with one thing changed."""

from torchgeo_msssl.evaluation.study.claims import claim
from torchgeo_msssl.evaluation.study.design import Cell, Initialisation, Pretraining, Study, Variant, make_cells
from torchgeo_msssl.evaluation.study.flights import with_flights
from torchgeo_msssl.evaluation.study.held_out import check_pretrainings, find_regions
from torchgeo_msssl.evaluation.study.jobs import estimate, forget_failures, run_study
from torchgeo_msssl.evaluation.study.results import Result, finished, read_results, write_results
from torchgeo_msssl.evaluation.study.run import claim_of, run_cell
from torchgeo_msssl.evaluation.study.steps import cell_folder, steps_of
from torchgeo_msssl.evaluation.study.summary import write_plan, write_summary

__all__ = (
    'Cell',
    'Initialisation',
    'Pretraining',
    'Result',
    'Study',
    'Variant',
    'cell_folder',
    'check_pretrainings',
    'claim',
    'claim_of',
    'estimate',
    'find_regions',
    'finished',
    'forget_failures',
    'make_cells',
    'read_results',
    'run_cell',
    'run_study',
    'steps_of',
    'with_flights',
    'write_plan',
    'write_results',
    'write_summary',
)
