"""Scores of the next token into a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...settings import Settings, setting

Array = NDArray[Any]

RECENT = 64
"""Tokens that the repetition penalty looks back at."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Settings):
    """How a token is chosen by its score."""

    called = "language"
    temperature: float = setting(
        0.8, "What scores are divided by: 0 takes the likeliest always, 1 what was learned.", least=0
    )
    top_k: int | None = setting(None, "Choose among so many of the likeliest; all if none.", least=1)
    top_p: float | None = setting(
        None, "Choose among the likeliest that have this probability together.", above=0, most=1
    )
    repetition_penalty: float = setting(
        1.0, f"Above 1 makes what was among the last {RECENT} tokens less likely.", least=1
    )

    unknown: bool = setting(False, "Let a model of words write <unk>, which stands for any it does not know.")

    def choose(self, scores: Array, recent: Sequence[int], random: np.random.Generator) -> int:
        """Return a token.

        Args:
            scores: (V,) log-probabilities, less a constant.
            recent: the last tokens.
            random: decides.

        >>> Sampling(temperature=0).choose(np.array([0.1, 2.0, -1.0]), [], np.random.default_rng(0))
        1
        """
        if self.repetition_penalty > 1 and recent:
            scores = self._penalised(scores, recent)
        if self.temperature == 0:
            return int(scores.argmax())
        p = np.exp((scores - scores.max()) / self.temperature)
        if self.top_k is not None and self.top_k < len(p):
            p[p < np.partition(p, -self.top_k)[-self.top_k]] = 0
        if self.top_p is not None and self.top_p < 1:
            p = self._likeliest(p, self.top_p)
        sums = p.cumsum()
        return int(min(sums.searchsorted(random.random() * sums[-1], "right"), np.flatnonzero(p)[-1]))

    def _penalised(self, scores: Array, recent: Sequence[int]) -> Array:
        """Lower the scores of recent tokens; as Keskar et al. (2019) do, once none is positive."""
        scores = scores - scores.max()
        which = np.unique(np.asarray(recent[-RECENT:]))
        scores[which] = scores[which] * self.repetition_penalty - np.log(self.repetition_penalty)
        return scores

    @staticmethod
    def _likeliest(p: Array, share: float) -> Array:
        """The fewest tokens whose probabilities sum to the share; the others get 0."""
        order = np.argsort(-p)
        sums = p[order].cumsum()
        kept = order[: int(sums.searchsorted(share * sums[-1])) + 1]
        only = np.zeros_like(p)
        only[kept] = p[kept]
        return only
