"""Readers: each is shown a sequence, works the answer out by itself from the definition, and shares no code
with the generator. `read(problem, x, lag)` gives {step: answer} of one sequence."""

import re

import numpy as np


def symbols(x, alphabet):
    """Rows of one 1 each -> text; a row of zeros ends it."""
    text = ""
    for row in x:
        if not row.any():
            break
        (place,) = np.flatnonzero(row)
        assert row[place] == 1
        text += alphabet[place]
    return text


def recall(x, lag):
    text = symbols(x, "ABCDEFGHabcdefgh?")
    assert re.fullmatch(rf"[A-H][a-h]{{{lag - 1}}}\?", text)
    return {lag: "ABCDEFGH".index(text[0])}


def adding(x, lag):
    assert len(x) == lag and ((x[:, 0] >= 0) & (x[:, 0] <= 1)).all()
    first, second = np.flatnonzero(x[:, 1])
    assert first < lag // 2 <= second and x[:, 1].sum() == 2
    return {lag - 1: [x[first, 0] + x[second, 0]]}


def copy(x, lag):
    text = symbols(x, "ABCDEFGH_?")
    kept = re.fullmatch(rf"([A-H]{{10}})_{{{lag - 1}}}\?_{{10}}", text)[1]
    return dict(enumerate([8] * (lag + 10) + ["ABCDEFGH".index(letter) for letter in kept]))


def temporal(x, lag):
    text = symbols(x, "EBabcdXY")
    assert re.fullmatch(r"E[a-dXY]+B", text) and lag <= len(text) <= 1.1 * lag
    order = re.sub("[^XY]", "", text)
    assert len(order) in (3, 4)
    return {len(text) - 1: int(order.replace("X", "0").replace("Y", "1"), 2)}


def echo(x, lag):
    text = symbols(x, "ABCD")
    return {t: "ABCD".index(text[t - lag]) for t in range(lag, len(text))}


def flipflop(x, lag):
    state, answers = [0, 0, 0], {}
    for t, pulses in enumerate(x):
        state = [int(pulse) if pulse else held for pulse, held in zip(pulses, state, strict=True)]
        answers[t] = list(state)
    assert all(answers[0])
    return answers


def timing(x, lag):
    spikes = np.flatnonzero(x[:, 0])
    assert len(spikes) == 4 and spikes[0] < 10
    gaps = np.diff(spikes)
    assert (gaps >= lag).all() and (gaps < lag + 10).all()
    return {int(spike): int(gap) - lag for spike, gap in zip(spikes[1:], gaps, strict=True)}


def counted(x, letters):
    text = symbols(x, "Sabc"[: letters + 1])
    n = text.count("a")
    assert n and text == "S" + "".join(letter * n for letter in "abc"[:letters])
    answers = {}
    for t in range(len(text)):
        may = set()
        for other in range(1, len(text) + 2):  # every n there is: which goes on from here?
            whole = "S" + "".join(letter * other for letter in "abc"[:letters]) + "T"
            if whole.startswith(text[: t + 1]):
                may.add(whole[t + 1])
        answers[t] = [int(letter in may) for letter in "abc"[:letters] + "T"]
    return answers


def inner_reber(text):
    """Whether a text is of Reber's grammar, by its regular expression."""
    return re.fullmatch(
        r"B(?:TS*X(?:S|XT*V(?:V|P(?:XT*VP)*(?:S|XT*VV)))|PT*V(?:V|P(?:XT*VP)*(?:S|XT*VV)))E", text
    )


def reber_end(string):
    """The last but one symbol that the grammar asks for."""
    assert string[0] == "B" and string[-1] == "E" and string[1] in "TP"
    assert inner_reber(string[2:-2]), string
    return string[1]
