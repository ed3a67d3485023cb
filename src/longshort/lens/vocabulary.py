"""The same arrays in three vocabularies: what each symbol is called, by whom.

*classic* are the words of the papers, *LTM/STM* those of courses that teach a long-term and a short-term
memory, *torch* the letters of torch.nn.LSTM. A text names a symbol in braces, ``"{f} of unit 3"``.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import SettingError

WORDS: Final[dict[str, dict[str, str]]] = {
    "classic": {
        "x": "input",
        "i": "input gate",
        "f": "forget gate",
        "g": "candidate",
        "o": "output gate",
        "c": "cell state",
        "h": "hidden state",
        "write": "input gate × candidate",
        "keep": "forget gate × cell state",
        "show": "output gate × tanh(cell)",
        "carousel": "constant error carousel",
        "r": "reset gate",
        "z": "update gate",
        "n": "candidate",
    },
    "LTM/STM": {
        "x": "event",
        "i": "ignore factor",
        "f": "forget gate",
        "g": "new information",
        "o": "use factor",
        "c": "long-term memory",
        "h": "short-term memory",
        "write": "learn gate",
        "keep": "what the forget gate keeps",
        "show": "use gate",
        "carousel": "long-term memory passed on unchanged",
        "r": "reset gate",
        "z": "keep factor",
        "n": "new information",
    },
    "torch": {
        "x": "x_t",
        "i": "i",
        "f": "f",
        "g": "g",
        "o": "o",
        "c": "c_t",
        "h": "h_t",
        "write": "i*g",
        "keep": "f*c",
        "show": "o*tanh(c)",
        "carousel": "c path",
        "r": "r",
        "z": "z",
        "n": "n",
    },
}
"""vocabulary -> symbol -> word."""

NOTE: Final = (
    "In the LTM/STM scheme the remember gate is the sum of what the forget gate keeps and of what the learn "
    "gate adds: the new long-term memory; it has no weights of its own. Some course notes give the use "
    "gate weights of its own, tanh(W_u (LTM f) + b_u), taken before the learned part is added. torch.nn.LSTM "
    "uses tanh of the new long-term memory, without weights, after it is added. And a forget gate of 1 "
    "means: keep everything."
)
"""Where the LTM/STM scheme differs from what is computed."""


def worded(text: str, vocabulary: str = "classic") -> str:
    """A text with its symbols in words.

    Args:
        text: with symbols in braces; braces around anything else stay.
        vocabulary: "classic", "LTM/STM" or "torch".

    Raises:
        SettingError: another vocabulary.

    >>> worded("the {f} of unit 3", "LTM/STM")
    'the forget gate of unit 3'
    """
    if vocabulary not in WORDS:
        raise SettingError(f"look: `vocabulary` must be one of {', '.join(WORDS)}, got {vocabulary!r}.")
    words = WORDS[vocabulary]
    return re.sub(r"\{(\w+)\}", lambda m: words.get(m[1], m[0]), text)
