"""Streams and windows: nothing is left out, read twice, or out of order."""

import numpy as np
import pytest

from language.texts import RHYME
from longshort.errors import DataError
from longshort.tasks.language import corpus
from longshort.tasks.language.corpus import Source
from longshort.tasks.language.settings import LanguageSettings
from longshort.tasks.language.vocabulary import learn
from longshort.tasks.language.windows import Passes, Streams


@pytest.mark.parametrize(("T", "N"), [(11, 1), (11, 2), (11, 10), (100, 7)])
def test_targets_stand_one_further(T, N):
    streams = Streams(np.arange(T), N)
    x, y = streams.window(0, streams.L)
    assert x.shape == y.shape == (N, (T - 1) // N)
    assert (y == x + 1).all()
    assert x.flatten().tolist() == list(range(N * streams.L))


def test_too_few_tokens():
    with pytest.raises(DataError) as raised:
        Streams(np.arange(5), 5, "book.txt")
    assert str(raised.value) == (
        "book.txt: must have more than 5 tokens, one for each stream, got 5. "
        "Give a longer text, or a smaller --batch."
    )


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(("L", "T"), [(1, 4), (4, 4), (9, 4), (1000, 35)])
def test_windows_of_a_pass_follow_one_another_to_its_end(L, T, random):
    passes, step = Passes(L, T, random, seed=1), 0
    for _ in range(3):
        end = 0
        while end < L:
            start, stop, number = passes.place(step)
            assert start == end and stop > start and (number == 0) == (start == 0)
            end, step = stop, step + 1
        assert end == L


def test_random_lengths_are_those_of_the_seed_and_the_pass_alone():
    whole = [Passes(5000, 70, True, seed=4).place(step) for step in range(400)]
    assert Passes(5000, 70, True, seed=4).place(399) == whole[399]
    assert [Passes(5000, 70, True, seed=5).place(step) for step in range(400)] != whole
    lengths = np.array([end - start for start, end, _ in whole])
    assert 0.01 < (lengths < 55).mean() < 0.15 and 60 < np.median(lengths) < 75


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_a_memory_map_holds_what_memory_would(tmp_path, monkeypatch, unit):
    path = tmp_path / "book.txt"
    path.write_text(RHYME * 50)
    source = Source(path, LanguageSettings(unit=unit))
    known = source.vocabulary()
    held = source.corpus(known, lambda: tmp_path)
    assert not isinstance(held.tokens, np.memmap)
    monkeypatch.setattr(corpus, "IN_MEMORY", 100)
    monkeypatch.setattr("longshort.tasks.language.text.PIECE", 64)
    mapped = Source(path, LanguageSettings(unit=unit)).corpus(known, lambda: tmp_path)
    assert isinstance(mapped.tokens, np.memmap) and mapped.tokens.filename == tmp_path / "tokens.bin"
    assert np.array_equal(held.tokens, mapped.tokens)
    assert (held.chars, held.digest) == (mapped.chars, mapped.digest)
    assert not list(tmp_path.glob("*.part"))


def test_the_part_held_out_is_the_last_and_never_too_long(monkeypatch):
    known = learn("char", lambda: [RHYME], None)
    whole = Source(None, LanguageSettings(), [RHYME * 10]).corpus(known)
    train, later = whole.split(0.1)
    assert len(train.tokens) == int(0.9 * len(whole.tokens))
    assert np.array_equal(np.concatenate([train.tokens, later.tokens]), whole.tokens)
    assert train.chars + later.chars == whole.chars
    monkeypatch.setattr(corpus, "HELD_OUT", 20)
    assert len(whole.split(0.1)[1].tokens) == 20
