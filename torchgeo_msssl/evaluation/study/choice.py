"""Choice between candidates by their scores on validation ground."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.statistics import Estimate, mean_interval

#: Scores of a candidate by seed.
type Scores = Mapping[int, float]


@dataclass(frozen=True)
class Choice:
    """The recommended candidate.

    Attributes:
        name: Its name.
        seed: Seed of its best run.
        best: Candidate with the highest mean, which may have been given up for a simpler one.
        means: Mean score of each candidate.
        leads: Mean lead of the recommended candidate over each other one, paired by seed; negative over one that
            scores higher.
        wins: Number of seeds in which the recommended candidate scores higher than each other one.
        seeds: Seeds that were compared.
        noise: Lead of ``best`` over the recommended candidate that would count, 0 if they are the same.
    """

    name: str
    seed: int
    best: str
    means: Mapping[str, Estimate]
    leads: Mapping[str, Estimate]
    wins: Mapping[str, int]
    seeds: tuple[int, ...]
    noise: float

    @property
    def reason(self) -> str:
        """Why it is recommended, in one sentence."""
        if self.best == self.name:
            others = {name: lead for name, lead in self.leads.items() if name != self.name}
            if not others:
                return f'{self.name} is the only candidate.'
            second = min(others, key=lambda name: others[name].mean)
            return f'{self.name} scores highest and leads {second} by {others[second]}.'
        lead = -self.leads[self.best].mean
        return (
            f'{self.best} scores {lead:.3f} higher than {self.name}, which is no more than {self.noise:.3f} of noise, '
            'so the simpler one is recommended.'
        )


def choose(scores: Mapping[str, Scores], margin: float = 0.01) -> Choice:
    """Choose the simplest candidate that the best one does not lead by more than the noise.

    The noise is one standard error of the lead over seeds, paired by seed (the one-standard-error rule of Breiman et
    al. 1984, Classification and Regression Trees, section 3.4.3), but at least a margin.

    Args:
        scores: Scores of each candidate by seed, the simplest candidate first.
        margin: Lead up to which two candidates are equal, whatever the standard error.

    Returns:
        The choice, from the seeds that all candidates have.

    Raises:
        ConfigurationError: If no seed is common to all candidates.
    """
    seeds = tuple(seed for seed in next(iter(scores.values()), {}) if all(seed in other for other in scores.values()))
    if not seeds:
        raise ConfigurationError('seeds: no seed has a score of every candidate; see failures.csv.')
    means = {name: mean_interval([known[seed] for seed in seeds]) for name, known in scores.items()}
    best = max(means, key=lambda name: means[name].mean)
    for name in scores:
        lead = _lead(scores[best], scores[name], seeds)
        noise = margin if math.isnan(lead.error) else max(margin, lead.error)
        if lead.mean <= noise:
            break
    leads = {other: _lead(scores[name], scores[other], seeds) for other in scores if other != name}
    wins = {other: sum(scores[name][seed] > scores[other][seed] for seed in seeds) for other in leads}
    seed = max(seeds, key=lambda seed: scores[name][seed])
    return Choice(name, seed, best, means, leads, wins, seeds, 0.0 if name == best else noise)


def choice_table(choice: Choice, metric: str) -> str:
    """Format the candidates as a Markdown table.

    Args:
        choice: The choice.
        metric: Name of the score.

    Returns:
        One row per candidate, in their order, with the reason below.
    """
    lines = [f'| candidate | {metric} | lead of the recommended one | seeds won |', '|---|---|---|---|']
    for name, mean in choice.means.items():
        if name == choice.name:
            lines.append(f'| **{name}** | {mean} | recommended | |')
        else:
            lead = choice.leads[name]
            lines.append(f'| {name} | {mean} | {_signed(lead)} | {choice.wins[name]} of {len(choice.seeds)} |')
    seeds = len(choice.seeds)
    note = (
        f'Means over {seeds} seeds and leads paired by seed, with 95 % intervals (Student).'
        if seeds > 1
        else 'One seed: the noise of training is unknown; give several seeds.'
    )
    return '\n'.join([*lines, '', choice.reason, note, ''])


def _lead(one: Scores, other: Scores, seeds: tuple[int, ...]) -> Estimate:
    return mean_interval([one[seed] - other[seed] for seed in seeds])


def _signed(lead: Estimate) -> str:
    return f'{lead.mean:+.3f}' + ('' if math.isnan(lead.half) else f' ± {lead.half:.3f}')
