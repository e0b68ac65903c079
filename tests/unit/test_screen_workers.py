"""Bands of a screen scored apart, as workers elsewhere do: the lists of one process, whatever each of them knew."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from peftide.inference.screen_bands import Band, Scorer, one_by_one
from peftide.inference.screen_pairs import pair_space
from peftide.inference.screen_result import ranked_rows
from peftide.inference.screen_selection import Pairs, Selection, concatenated
from peftide.inference.screen_tiles import tile_function
from peftide.inference.screen_workers import Screening, screen_band
from peftide.models.heads import Head
from peftide.records import Proteins

NUM_PROTEINS, TOP_K, WIDTH = 1300, 7, 16
NAMES = tuple(map(str, range(NUM_PROTEINS)))
ONE_SET = Proteins(NAMES, NAMES)
OTHERS = Proteins((*NAMES[900:], "x", "y"), (*NAMES[900:], "x", "y"))


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def screening_of(*, against: Proteins | None, top_k: int | None) -> tuple[Screening, Scorer]:
    torch.manual_seed(3)
    head = Head("mlp", width=WIDTH, arity=2, num_outputs=1, hidden_width=8, dropout=0.0).eval().requires_grad_(False)
    space, table = pair_space(ONE_SET, against, self_pairs=False, both_orders=top_k is not None)
    vectors_PD = torch.randn(len(table), WIDTH, generator=torch.Generator().manual_seed(1))
    new_selection = partial(
        Selection,
        num_proteins=space.num_rows,
        top_k=top_k,
        least=0.1 if top_k is None else -np.inf,
        margin=0.0,
        is_symmetric=space.is_symmetric,
    )
    scorer = Scorer(tile_function(head, vectors_PD), None, torch.device("cpu"))
    return Screening(vectors_PD.numpy(), space, None, new_selection), scorer


def in_result(pairs: Pairs, screening: Screening, top_k: int | None) -> list[tuple[int, int, float]]:
    if top_k is not None:
        pairs, _ = ranked_rows([pairs], top_k=top_k, is_symmetric=screening.space.is_symmetric)
    return sorted(zip(pairs.rows.tolist(), pairs.columns.tolist(), pairs.logits.tolist(), strict=True))


@pytest.mark.parametrize("against", [None, OTHERS])
@pytest.mark.parametrize("top_k", [TOP_K, None])
@pytest.mark.parametrize("lag", [0, 1, 100])
def test_bands_scored_in_any_order_and_knowing_little_give_the_result_of_one_process(pool, against, top_k, lag):
    screening, scorer = screening_of(against=against, top_k=top_k)
    space, told = screening.space, []
    bands = [Band(number, *band) for number, band in enumerate(space.bands())]
    one = screening.new_selection(device=scorer.device)
    compute = one_by_one(space, scorer, one, pool)
    expected = concatenated([pairs for _, pairs in compute(iter(bands), told.append)])
    assert sum(told) == pytest.approx(space.num_pairs, abs=1)

    known, found = screening.new_selection(device=scorer.device), []
    cuts = [known.cuts()]
    for band in [bands[-1], *bands[:-1]]:
        cuts_P = cuts[max(0, len(cuts) - 1 - lag)]
        task = Band(band.number, band.rows, band.columns, None if cuts_P is None else cuts_P.numpy())
        pairs = screen_band(screening, scorer, pool, pickle.loads(pickle.dumps(task)))
        known.learn(pairs)
        cuts.append(known.cuts())
        found.append(known.still_kept(pairs))
    if top_k is not None:
        assert torch.equal(known.best_PK.sort().values, one.best_PK.sort().values)
    everything = concatenated(found)
    assert len(everything) < space.num_pairs / 2
    assert in_result(everything, screening, top_k) == in_result(expected, screening, top_k)


def test_what_is_known_already_keeps_pairs_from_coming_back(pool):
    screening, scorer = screening_of(against=None, top_k=TOP_K)
    rows, columns = next(screening.space.bands())
    selection = screening.new_selection(device=scorer.device)
    compute = one_by_one(screening.space, scorer, selection, pool)
    _ = list(compute((Band(n, *band) for n, band in enumerate(screening.space.bands())), lambda pairs: None))
    blind = screen_band(screening, scorer, pool, Band(0, rows, columns))
    knowing = screen_band(screening, scorer, pool, Band(0, rows, columns, selection.cuts().numpy()))
    assert len(knowing) < 0.9 * len(blind)
    cuts = selection.cuts().numpy()
    assert (knowing.logits >= np.minimum(cuts[knowing.rows], cuts[knowing.columns])).all()
