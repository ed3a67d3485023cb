"""Language: a model of characters, bytes, subwords or words that reads a text and goes on with it.

settings.py        what a person may choose
recipes.py         settings by name: the papers' own, in recipes/*.json
text.py            files -> characters, with the place of what is wrong
vocabulary.py      characters <-> tokens
corpus.py          a file -> tokens, in memory or as a memory map
windows.py         tokens -> N streams, window after window
model.py           tokens -> the next one's scores
dropout.py         what is silenced in training
objective.py       the loss with its penalties, the validation, the state that is carried
beginning.py       what is checked and said before a fit
stepping.py        a fitted model, one token at a time
sampling.py        scores -> a token
scoring.py         a text -> nats, bits and perplexity, beside baselines
language_model.py  all of it, as one object
story.py           all of it, as a run folder
"""

from .language_model import LanguageModel
from .recipes import recipes
from .scoring import Score
from .settings import LanguageSettings

__all__ = ["LanguageModel", "LanguageSettings", "Score", "recipes"]
