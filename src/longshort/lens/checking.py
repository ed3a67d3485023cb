"""What `look` is given: checked before the work, and against the sequences once they are known."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError, SettingError
from .layers import recurrent_layers
from .opening import Opened
from .replay import Layer
from .specimen import Played, Specimen
from .trace import Trace

FRAME = ("step", "length", "lags", "full", "half", "gates")
"""What a `Recorder` keeps of a moment."""
PAGES = (".html", ".htm")
"""Endings of the name of a page."""


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `look`, by name, in the form in which `Opened` keeps them.

    Raises:
        SettingError: one is of another kind, or outside its range.
    """
    for name in ("loss", "output"):
        fine = given[name] is None or callable(given[name])
        _must(fine, name, "a function such as lambda out: ..., or None", given[name])
    _must(isinstance(given["title"], str), "title", "a text", given["title"])
    layer = given["layer"]
    _must(layer is None or isinstance(layer, str), "layer", "the name of a layer, or None", layer)
    if given["required"] is not None:
        _whole("required", given["required"], 1, "a number of steps, 1 or more")
    _whole("seed", given["seed"], 0, "a whole number from 0 to 2**64 - 1")
    made = dict(given, film=_list("film", given["film"], f"frames of a Recorder, each with {_and(FRAME)}"))
    for frame in made["film"]:
        kept = isinstance(frame, Mapping) and set(FRAME) <= set(frame)
        _must(kept, "film", f"frames of a Recorder, each with {_and(FRAME)}", given["film"])
    for name in ("channels", "names"):
        made[name] = _texts(name, given[name], "a list of texts")
    rows = _list("tokens", () if given["tokens"] is None else given["tokens"], "a list of texts a sequence")
    made["tokens"] = [_texts("tokens", row, "a list of texts a sequence", letters=True) for row in rows]
    made["compare"] = _compared({} if given["compare"] is None else given["compare"])
    return made


def fitting(opened: Opened, trace: Trace, part: Layer) -> None:
    """Compare what was said of the sequences with those that there are.

    Raises:
        SettingError: more steps are required than lie before the last; or other sequences or steps have names
            or tokens.
    """
    N, T = part.mask.shape
    if opened.required is not None and not opened.required < T:
        raise SettingError(
            f"look: `required` must be less than the {T} steps of the sequences, got {opened.required}. "
            "Give longer sequences: these cannot show what is kept for so long."
        )
    if opened.names and len(opened.names) != N:
        raise SettingError(f"look: `names` must name each of the {N} sequences, got {len(opened.names)}.")
    if opened.tokens is not None and not any(_told(opened.tokens, call.mask) for call in trace.calls):
        counts = sorted({len(row) for row in opened.tokens})
        each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        raise SettingError(
            f"look: `tokens` must have a text for each step of each sequence, {N} lists of {T}, got "
            f"{len(opened.tokens)} of {each}."
        )


def _told(tokens: list[list[str]], mask: Tensor) -> bool:
    """Whether there is a token for each step of each sequence, with its padding or without."""
    N, T = mask.shape
    return len(tokens) == N and all(
        len(row) in (T, length) for row, length in zip(tokens, mask.sum(1).tolist(), strict=True)
    )


def fitting_loss(specimen: Specimen, trace: Trace) -> None:
    """Raise where the loss has a shape that nothing can be made of."""
    if specimen.loss is None:
        return
    N, T = trace.calls[-1].x.shape[:2]
    with torch.no_grad():
        losses = specimen.losses(trace.output)
    shape = tuple(losses.shape)
    if shape not in ((), (N,), (N, T)):
        hint = " Average over what comes after them: .mean(-1)." if shape[:2] == (N, T) else ""
        raise SettingError(
            f"look: `loss` must give the loss of each step ({N}, {T}), of each sequence ({N},), or a scalar, "
            f"got {shape}.{hint}"
        )
    if not losses.isfinite().all():
        raise DataError(f"look: `loss` must be finite, got {losses[~losses.isfinite()][0].item()}.")


def require_gradients(specimen: Specimen, played: Played) -> None:
    """Raise where no gradient goes back from the answer, or from its loss, to the layers.

    Raises:
        SettingError: so it is.
    """
    kind = type(specimen.model).__name__
    if not played.output.requires_grad:
        raise SettingError(
            f"look: what {kind} returns must carry gradients, got a tensor without. Leave out no_grad() and "
            "detach() in its forward, and in `output`."
        )
    if specimen.loss is not None and not specimen.losses(played.output).requires_grad:
        raise SettingError(
            f"look: `loss` must pass gradients on to what {kind} returns, got a loss without. Leave out "
            "detach(), no_grad() and argmax in it."
        )


def require_page_name(path: str | Path, name: str = "`path`") -> None:
    """Raise where a page would take a name that is none of a page's, and maybe another file's.

    Args:
        path: of the page.
        name: what to call it.

    Raises:
        SettingError: it does not end in .html or .htm.
    """
    if Path(path).suffix.lower() not in PAGES:
        raise SettingError(
            f"look: {name} must end in .html or .htm, got {path}: what is written is a page, and would "
            "replace a file of that name."
        )


def _must(fine: bool, name: str, what: str, got: Any) -> None:
    if not fine:
        text = repr(got)
        short = text if len(text) <= 60 and "\n" not in text else type(got).__name__
        raise SettingError(f"look: `{name}` must be {what}, got {short}.")


def _whole(name: str, value: Any, least: int, what: str) -> None:
    try:
        fine = not isinstance(value, bool) and least <= operator.index(value) < 2**64
    except TypeError:
        fine = False
    _must(fine, name, what, value)


def _list(name: str, value: Any, what: str) -> list[Any]:
    _must(isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping), name, what, value)
    return list(value)


def _texts(name: str, value: Any, what: str, letters: bool = False) -> list[str]:
    """The texts as a list; of a text its letters, if that may be."""
    found = list(value) if letters and isinstance(value, str) else _list(name, value, what)
    _must(all(isinstance(one, str) for one in found), name, what, value)
    return found


def _compared(given: Any) -> dict[str, list[nn.Module]]:
    """The models to compare with, by name, one a seed."""
    what = "models by name, each a torch module or a list of them, one a seed"
    _must(isinstance(given, Mapping), "compare", what, given)
    made = {name: [one] if isinstance(one, nn.Module) else one for name, one in given.items()}
    for name, several in made.items():
        made[name] = _list("compare", several, what)
        fine = isinstance(name, str) and len(made[name]) > 0
        _must(fine and all(isinstance(one, nn.Module) for one in made[name]), "compare", what, given)
        for one in made[name]:
            recurrent_layers(one, f"each model of `compare`, such as {name!r},")
    return made


def _and(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
