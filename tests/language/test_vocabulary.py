"""Characters to tokens and back."""

import collections
import json

import numpy as np
import pytest

from longshort.errors import DataError, RunError
from longshort.tasks.language import vocabulary
from longshort.tasks.language.vocabulary import Characters, from_json, learn

TEXT = "the cat saw\nthe dog. The é bird ran\n" * 4


def made(unit, size=None, text=TEXT):
    if unit == "subword":
        pytest.importorskip("tokenizers")
    return learn(unit, lambda: [text], size)


def written(known, tokens):
    add = known.decoder()
    return "".join(map(add, tokens.tolist()))


each_unit = pytest.mark.parametrize("unit", ["char", "byte", "word", "subword"])


@each_unit
def test_a_known_text_comes_back(unit):
    known = made(unit)
    tokens, strange = known.encode(TEXT)
    assert written(known, tokens) == TEXT
    assert not strange and not known.unscored(TEXT).any() and len(known.unscored(TEXT)) == len(tokens)
    assert tokens.min() >= 0 and tokens.max() < len(known)


@each_unit
def test_json_makes_an_equal_vocabulary(unit):
    known = made(unit)
    again = from_json(json.loads(json.dumps(known.to_json())), "x")
    assert np.array_equal(again.encode(TEXT + "zebra ñ")[0], known.encode(TEXT + "zebra ñ")[0])


@pytest.mark.parametrize("values", [None, {}, {"unit": "song"}, {"unit": "char"}])
def test_json_that_is_none(values):
    with pytest.raises(RunError, match=r"^run/weights: holds no vocabulary: .*\. Train the run again\.$"):
        from_json(values, "run/weights")


@pytest.mark.parametrize(
    ("char", "read"),
    [("É", "e"), ("è", "e"), ("“", '"'), ("—", "-"), ("A", "a"), ("b", "B"), ("\t", " "), ("猫", " ")],
)
def test_a_foreign_character_is_read_as_the_likest(char, read):
    known = Characters('ae "-B\n')
    tokens, strange = known.encode(f"a{char}a")
    assert known.known[tokens[1]] == read and strange == {char: 1}
    assert known.unscored(f"a{char}a").tolist() == [False, True, False]


def test_without_a_blank_something_is_read():
    assert Characters("xy").nearest("猫") == 0


def test_words():
    known = made("word", 4)
    assert known.known == ["<eos>", "<unk>", "the", "The"]
    tokens, strange = known.encode("the zebra\nThe end")
    assert tokens.tolist() == [2, 1, 0, 3, 1] and strange == collections.Counter(zebra=1, end=1)
    assert written(known, tokens) == "the <unk>\nThe <unk>"


def test_words_written_as_unknown_in_the_text_are_one_with_them():
    known = learn("word", lambda: ["a <unk> b\n<unk> a\n"], None)
    tokens, strange = known.encode("a <unk> c\n")
    assert not set("c") - set(strange) and tokens[1] == tokens[2]


def test_frequent_characters_are_kept():
    assert learn("char", lambda: ["aaab", "bbc"], 2).known == "ab"


def test_a_text_of_one_character():
    with pytest.raises(DataError) as raised:
        learn("char", lambda: ["aaa"], None)
    assert str(raised.value) == "the text: must have two different characters, got 'a'."


@pytest.mark.parametrize("cut", range(1, 12))
def test_lines_are_whole_wherever_the_pieces_end(cut):
    text = "ab cd\n\nef\ngh"
    pieces = [text[k : k + cut] for k in range(0, len(text), cut)]
    found = list(vocabulary.lines(pieces))
    assert "".join(found) == text
    assert all(line.endswith("\n") for line in found[:-1])


def test_bytes_become_characters_when_their_last_one_has_come():
    add = made("byte").decoder()
    assert [add(token) for token in "é!".encode()] == ["", "é", "!"]
    assert add(0xFF) + add(ord("a")) == "\ufffda"
