"""The page of a study, read as a browser reads it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imsave

from tests.evaluation.tables import study_rows, write_run, write_study, write_table
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.report import write_report

_VOID = {'meta', 'link', 'img', 'br', 'hr', 'input'}


class Page(HTMLParser):
    """Tags with their attributes, the cells of tables, and whether every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.text, self._open = '', []
        self.feed(path.read_text(encoding='utf-8'))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or '' for key, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append('')

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ('td', 'th'):
            self.tables[-1][-1][-1] += data
        elif 'style' not in self._open:
            self.text += data

    def attributes(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of two fractions with three seeds and two regions, and pictures of its cells."""
    folder = write_study(tmp_path / 'study', regions=('north', 'south'))
    rng = np.random.default_rng(0)
    for row in study_rows(regions=('north', 'south'))[::3]:
        for part, name in (('test', 'sample_predictions.png'), ('fit', 'split.png')):
            path = folder / str(row['run']) / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # the split is the same for all, the predictions are not
            imsave(path, rng.random((30, 40, 3)) if part == 'test' else np.eye(40))
    pretraining = folder / 'pretraining' / 'fastsiam'
    pretraining.mkdir(parents=True)
    (pretraining / 'result.json').write_text('{"metrics": {}, "seconds": 312.4, "command": "fit", "error": null}')
    (pretraining / 'provenance.json').write_text('{"reads_test_ground": true, "labels": false}')
    return folder


def test_the_page_needs_nothing_but_itself(study: Path) -> None:
    path = write_report(study)
    assert path == study / 'report.html'
    text = re.sub(r'base64,[A-Za-z0-9+/=]+', '', path.read_text(encoding='utf-8'))
    assert not re.search(r'https?:|//[a-z]|url\(|@import', text)
    page = Page(path)
    references = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ('src', 'href', 'srcset', 'action', 'data', 'poster')
    ]
    assert references
    assert all(value.startswith('data:') for value in references)
    assert not page.attributes('script')
    images = page.attributes('img')
    assert len(images) == 1 + 4 + 1  # curves, predictions of each condition, the split that they share
    assert all(image['src'].startswith('data:image/png;base64,') for image in images)
    assert all(len(image['alt']) > 20 for image in images)
    policy = next(tag['content'] for tag in page.attributes('meta') if 'http-equiv' in tag)
    assert policy.startswith("default-src 'none'")


def test_numbers_are_those_of_pandas(study: Path) -> None:
    table = pd.read_csv(study / 'results.csv')
    known = table[table['metric'] == 'test_iou_vine']
    seeds = known.groupby(['initialisation', 'fraction', 'seed'])['value'].mean()
    means, paired, *_ = Page(write_report(study)).tables
    assert means[0] == ['initialisation', '10 % of the training labels', '100 % of the training labels']
    for name, *cells in means[1:3]:
        for fraction, cell in zip((0.1, 1.0), cells, strict=True):
            values = seeds[name, fraction]
            assert cell == f'{values.mean():.3f} ± {values.std(ddof=1):.3f} (3)'
    assert means[3] == ['threshold on an index', '0.310 ± 0.010 (3)', '0.310 ± 0.010 (3)']
    pairs = known.pivot_table(index=['fraction', 'seed', 'region'], columns='initialisation', values='value')
    differences = pairs['fastsiam'] - pairs['random']
    for row, fraction in zip(paired[1:], (0.1, 1.0), strict=True):
        wins = int((differences[fraction] > 0).sum())
        assert row[:3] == ['fastsiam', f'{100 * fraction:.0f} %', f'{differences[fraction].mean():+.3f}']
        assert row[4] == f'{wins} / 0 / {6 - wins}'


def test_the_page_says_what_helped_and_what_did_not(study: Path) -> None:
    page = Page(write_report(study))
    assert 'Higher than random: fastsiam, fraction 0.1. Lower than random: fastsiam, fraction 1.0.' in page.text
    assert '24 of 30 cells ended, 11 s each on average' in page.text
    styles = [tag.get('class', '') for tag in page.attributes('td')]
    assert styles.count('number higher') == 1
    assert styles.count('number lower') == 1
    assert ['fastsiam', '312', 'read the pixels of the test ground too (never its labels)', 'ended'] in page.tables[2]


def test_commands_are_there_to_be_copied(study: Path) -> None:
    page = Page(write_report(study))
    for row in study_rows(regions=('north', 'south'))[::3]:
        assert str(row['command']).replace(' && ', ' && \\\n') in page.text
    assert len(page.attributes('details')) == 2


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">'
    write_study(tmp_path, initialisations=('random', evil))
    write_table(tmp_path / 'failures.csv', [{'cell': evil, 'error': evil, 'command': evil}])
    page = Page(write_report(tmp_path))
    assert all(image['src'].startswith('data:') for image in page.attributes('img'))
    assert page.tables[0][2][0] == evil
    assert page.tables[-1][1] == [evil, evil]


def test_pictures_outside_the_study_are_not_taken_in(tmp_path: Path) -> None:
    rows = [row | {'run': '../secret'} for row in study_rows()]
    write_table(tmp_path / 'study' / 'results.csv', rows)
    (tmp_path / 'secret').mkdir()
    imsave(tmp_path / 'secret' / 'split.png', np.eye(9))
    page = Page(write_report(tmp_path / 'study'))
    assert len(page.attributes('img')) == 3  # the curves of three metrics


def test_one_seed_and_nothing_to_compare_with(tmp_path: Path) -> None:
    """No spread, no interval, no paired table; the first initialisation is the reference."""
    write_study(tmp_path, initialisations=('imagenet',), seeds=1, fractions=(1.0,))
    page = Page(write_report(tmp_path))
    assert re.fullmatch(r'0\.\d{3} \(1\)', page.tables[0][1][1])
    assert len(page.tables) == 1
    write_study(tmp_path, initialisations=('imagenet', 'fastsiam'), seeds=1, fractions=(1.0,))
    page = Page(write_report(tmp_path))
    assert page.tables[1][1][0] == 'fastsiam'
    assert page.tables[1][1][2] == '–'
    assert 'Not told apart from imagenet by these seeds: fastsiam.' in page.text


def test_folders_that_are_no_studies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='expected the folder of a study'):
        write_report(write_run(tmp_path / 'version_0'))
    study = write_study(tmp_path / 'study')
    lines = (study / 'results.csv').read_text().splitlines()
    (study / 'results.csv').write_text(lines[0] + '\n')
    with pytest.raises(ConfigurationError, match='no cell of the study has ended'):
        write_report(study)
