"""Splits of the ground into parts for training, validation and test.

Chips that overlap or lie next to each other share texture and illumination, so a random split of chips measures
memory. Blocks of ground are separate whatever scene or date shows them (Roberts et al. 2017,
https://doi.org/10.1111/ecog.02881).

All commands, data modules and samplers split through this package: the same scenes, labels, seed, block size and
fractions give the same held-out ground everywhere.
"""
