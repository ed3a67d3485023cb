"""A fitted model that goes on from a prompt, one token and one step at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ... import engine
from ...errors import SettingError
from ...nn.decoder import Decoder
from ...scan import State
from .model import LanguageNetwork, States
from .sampling import RECENT, Sampling
from .vocabulary import Vocabulary

Array = NDArray[Any]

STORED = ("full", "bfloat16", "int8")


class Stepper:
    """N texts somewhere in their course.

    On a CPU the steps are the engine's own, on arrays that are written in place; elsewhere the network's.

    Args:
        network: in evaluation mode.
        state: of each layer, for N texts.
        threads: of a step.
        stored: "full", "bfloat16" or "int8": how the weights are kept for the steps. A step reads all of
            them, so short ones are faster where they fit the cache and long ones do not. The scores' weights
            are kept in bfloat16 with either of the short forms.
    """

    def __init__(
        self, network: LanguageNetwork, state: States, threads: int | None = None, stored: str = "full"
    ) -> None:
        self.network, self.state, self.stored = network, state, stored
        self._embedding = network.embedding.weight.detach().cpu().numpy()
        self._moves: list[Any] | None = None
        self._weight: torch.Tensor | None = None
        if isinstance(network.decoder, Decoder):
            weight = network.decoder.weight.detach()
            self._weight = weight.t().contiguous() if stored == "full" else weight.bfloat16()
        if _served(network):
            self._moves = [self._prepared(k, threads or torch.get_num_threads()) for k in range(len(state))]
            self._h = [np.ascontiguousarray(s.h[0].numpy()) for s in state]
            self._c = [np.ascontiguousarray(s.c[0].numpy()) for s in state]

    def _prepared(self, k: int, threads: int) -> Any:
        weights = {name: w.detach().numpy() for name, w in self.network.layers[k].named_parameters()}
        bias = weights["bias_ih_l0"] + weights["bias_hh_l0"]
        packed = engine.pack(weights["weight_ih_l0"], weights["weight_hh_l0"], bias)
        return engine.step(packed, stored=self.stored, threads=threads).move

    def step(self, tokens: Array) -> Array:
        """Read a token of each text; return the scores (N, V) of the next."""
        if self._moves is None:
            return self._slowly(tokens)
        x = self._embedding[tokens]
        for move, h, c in zip(self._moves, self._h, self._c, strict=True):
            move(x, h, c)
            x = h
        return self.scores(x)

    @torch.no_grad()
    def scores(self, h: Array) -> Array:
        """Scores (N, V) from the last layer's h (N, width).

        The product is torch's, never NumPy's: two libraries' threads on the same cores wait for one another.
        """
        decoder, x = self.network.decoder, torch.from_numpy(h)
        if self._weight is None or not isinstance(decoder, Decoder):
            return np.asarray(decoder(x).numpy())
        if self.stored == "full":
            return np.asarray(torch.addmm(decoder.bias, x, self._weight).numpy())
        product = functional.linear(x.bfloat16(), self._weight)
        return np.asarray((product.float() + decoder.bias).numpy())

    @torch.no_grad()
    def _slowly(self, tokens: Array) -> Array:
        device = self.network.embedding.weight.device
        read = self.network(torch.from_numpy(tokens).to(device)[:, None], self.state)
        self.state = read.state
        return np.asarray(self.network.decoder(read.h[:, 0]).float().cpu().numpy())


def _served(network: LanguageNetwork) -> bool:
    """Whether the engine's own step is this network's: float32 on a CPU, and nothing mixed by zoneout."""
    weight, s = network.embedding.weight, network.settings
    plain = not s.zoneout_h and not s.zoneout_c
    return engine.available() and plain and weight.device.type == "cpu" and weight.dtype == torch.float32


@dataclass(frozen=True)
class Manner:
    """How a text goes on.

    Args:
        sampling: how tokens are chosen.
        stops: texts before which it ends.
        seed: of the choices; another each time if None.
        threads: of a step; torch's number if None.
        stored: how the weights are kept for the steps, as in `Stepper`.

    Raises:
        SettingError: `stored` is none of its choices, or a number is too small.
    """

    sampling: Sampling
    stops: Sequence[str] = ()
    seed: int | None = 0
    threads: int | None = None
    stored: str = "full"

    def __post_init__(self) -> None:
        if self.stored not in STORED:
            raise SettingError(
                f"language: `stored` must be one of {', '.join(map(repr, STORED))}, got {self.stored!r}."
            )
        for name, least in (("seed", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | np.integer) or value < least):
                raise SettingError(
                    f"language: `{name}` must be a whole number of at least {least}, got {value!r}."
                )
        for stop in self.stops:
            if not isinstance(stop, str):
                raise SettingError(f"language: `stop` must be a text or several, got {stop!r}.")


def manner(
    *,
    stop: str | Sequence[str] = (),
    seed: int | None = 0,
    threads: int | None = None,
    stored: str = "full",
    **sampling: Any,
) -> Manner:
    """How a text goes on, from the arguments of `LanguageModel.stream`."""
    given: Any = stop
    stops = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    return Manner(Sampling.from_json(sampling, "language"), stops, seed, threads, stored)


def check_prompt(prompt: object, length: int | None) -> None:
    """Refuse what no text can go on from, or for.

    Raises:
        SettingError: the prompt is no string, or the length no number of tokens.
    """
    if not isinstance(prompt, str):
        raise SettingError(
            f"language: `prompt` must be a string, got {type(prompt).__name__}. `generate_all` takes several."
        )
    if length is not None and (type(length) is not int or length < 0):
        raise SettingError(f"language: `length` must be a whole number of at least 0, got {length!r}.")


@torch.no_grad()
def begin(network: LanguageNetwork, prompts: Sequence[Array], manner: Manner) -> tuple[Stepper, Array]:
    """Read prompts of any lengths at once; return where they stand, and the scores (N, V) of what follows."""
    device = network.embedding.weight.device
    reads = [network(torch.from_numpy(prompt).to(device)[None]) for prompt in prompts]
    layers = zip(*(read.state for read in reads), strict=True)
    state = tuple(State.stack(list(states)) for states in layers)
    last = torch.cat([read.h[:, -1] for read in reads])
    scores = np.asarray(network.decoder(last).float().cpu().numpy())
    return Stepper(network, state, manner.threads, manner.stored), scores


def tokens(
    network: LanguageNetwork, prompts: Sequence[Array], manner: Manner, never: Sequence[int] = ()
) -> Iterator[Array]:
    """The next token of each prompt (N,), and the next, without end; none of `never`.

    Each text has random numbers of its own, from the same seed: what it becomes depends on itself alone.
    """
    stepper, scores = begin(network, prompts, manner)
    left_out = list(never)
    randoms = [np.random.default_rng(manner.seed) for _ in prompts]
    recent = [deque(prompt[-RECENT:].tolist(), RECENT) for prompt in prompts]
    choose = manner.sampling.choose
    while True:
        scores[:, left_out] = -np.inf
        chosen = np.array([choose(*each) for each in zip(scores, map(list, recent), randoms, strict=True)])
        yield chosen
        for past, token in zip(recent, chosen.tolist(), strict=True):
            past.append(token)
        scores = stepper.step(chosen)


def generate(
    network: LanguageNetwork, vocabulary: Vocabulary, prompt: str, length: int | None, manner: Manner
) -> Iterator[str]:
    """The text that follows a prompt: a piece for each token, perhaps an empty one."""
    source = tokens(network, [begun(vocabulary, prompt)], manner, unwritten(vocabulary, manner))
    text, ending = writer(vocabulary, prompt), Ending(manner.stops)
    for _ in count() if length is None else range(length):
        yield ending.take(text(int(next(source)[0])))
        if ending.reached:
            return
    if ending.stops:
        yield ending.rest()


def together(
    network: LanguageNetwork, vocabulary: Vocabulary, prompts: Sequence[str], length: int, manner: Manner
) -> Iterator[list[str]]:
    """The texts that follow several prompts: for each step, the texts that have not ended as they stand.

    An ended text is not written on; its place keeps what it was.
    """
    begins = [begun(vocabulary, prompt) for prompt in prompts]
    source = tokens(network, begins, manner, unwritten(vocabulary, manner))
    texts, endings = [writer(vocabulary, p) for p in prompts], [Ending(manner.stops) for _ in prompts]
    found = [""] * len(prompts)
    for _ in range(length):
        for n, token in enumerate(next(source).tolist()):
            if not endings[n].reached:
                found[n] += endings[n].take(texts[n](token))
        yield found
        if all(ending.reached for ending in endings):
            return
    yield [
        text + ("" if ending.reached else ending.rest()) for text, ending in zip(found, endings, strict=True)
    ]


def unwritten(vocabulary: Vocabulary, manner: Manner) -> Sequence[int]:
    """The tokens that a text is not to have."""
    return () if manner.sampling.unknown or vocabulary.unknown is None else (vocabulary.unknown,)


def begun(vocabulary: Vocabulary, prompt: str) -> Array:
    """The prompt's tokens; of an empty one, the end of a line."""
    found = vocabulary.encode(prompt or "\n")[0]
    return found if len(found) else np.zeros(1, np.int64)


def writer(vocabulary: Vocabulary, prompt: str) -> Callable[[int], str]:
    """A function from each next token to the text it adds to the prompt: after a word, a blank first."""
    text = vocabulary.decoder()
    if prompt and not prompt[-1].isspace():
        text(int(begun(vocabulary, prompt)[-1]))
    return text


class Ending:
    """Passes text on up to the first of some stop texts, holding back what may be the beginning of one.

    Args:
        stops: the texts; empty ones do not count.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = [stop for stop in stops if stop]
        self.reached, self._held = False, ""
        self._most = max(map(len, self.stops), default=1) - 1

    def take(self, piece: str) -> str:
        """Take the next piece; return what can be passed on."""
        self._held += piece
        places = [place for place in map(self._held.find, self.stops) if place >= 0]
        if places:
            self.reached = True
            return self._held[: min(places)]
        cut = len(self._held) - self._most
        passed, self._held = self._held[: max(cut, 0)], self._held[max(cut, 0) :]
        return passed

    def rest(self) -> str:
        """What was held back to the end."""
        return self._held
