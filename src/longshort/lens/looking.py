"""`look`: a model and an input -> every number of the lens, as one object that shows itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..train.progress import followed
from .attribution import Influence
from .checking import checked, fitting, fitting_loss, require_page_name
from .cutting import Surgery
from .driving import Drivers, drivers
from .finding import Finding
from .findings import find
from .gradients import Flow, River, flow
from .layers import Call
from .measuring import Measuring
from .memory import HalfLife, Health, half_life, health
from .opening import Opened, open_model
from .probes import Stored, stored
from .specimen import Specimen, require_finite_answer
from .trace import Trace
from .usage import Used, used
from .vocabulary import WORDS


@dataclass(frozen=True)
class Horizons:
    """The three horizons of one model, from one seed."""

    kind: str
    flow: Flow | None
    stored: Stored | None
    used: Used | None


@dataclass
class Look:
    """What was seen inside a model. Prints its findings; shows its page in a notebook; `save` writes it."""

    title: str
    trace: Trace
    layer: str
    "the layer whose memory is measured: the last one, if no other was asked for"
    half_lives: dict[str, HalfLife]
    healths: dict[str, Health]
    driven: dict[str, Drivers]
    flow: Flow | None = None
    stored: Stored | None = None
    used: Used | None = None
    rivers: list[River] = field(default_factory=list)
    influence: Influence | None = None
    surgery: Surgery | None = None
    name: str = ""
    "what the model is called beside others"
    others: dict[str, list[Horizons]] = field(default_factory=dict)
    "models compared in the horizon view, one a seed; further seeds of this one under its own name"
    required: int | None = None
    "steps the task needs, if known"
    source: Tensor | None = None
    """(N, T, C) numbers or (N, T) symbols that memory is asked about: the model's own input where it has the
    sequences and steps of the layers, else what the first recurrent layer reads"""
    asked: str = ""
    "whose input that is, in words"
    channels: list[str] = field(default_factory=list)
    "names of the channels of `source`, or of what the first recurrent layer reads"
    tokens: list[list[str]] | None = None
    names: list[str] = field(default_factory=list)
    answer: str = ""
    "what the answer is that influence is measured on"
    vocabulary: str = "classic"
    notes: list[str] = field(default_factory=list)
    "what was left out, in sentences"
    film: list[dict[str, Any]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """T, the steps of the longest sequence."""
        return int(self.trace.layer(self.layer).mask.shape[1])

    def findings(self) -> list[Finding]:
        """Plain sentences, each with its number, threshold and remedy: how far back the memory reaches, which
        cells keep longest and whether the model uses them, then warnings, then the rest.
        """
        return find(self)

    def __str__(self) -> str:
        return "\n".join(finding.line(self.vocabulary) for finding in self.findings())

    def __repr__(self) -> str:
        return f"{self.title}\n{self}"

    def html(self, limit: float = 2e6) -> str:
        """The page: one HTML file that needs no network.

        Args:
            limit: its largest size in bytes; beyond, sequences and then units are left out, and it says so.
                What is left at last takes about 100 kB, whatever the limit.

        Raises:
            SettingError: no positive limit.
        """
        from .assembly import page

        if not limit > 0:
            raise SettingError(f"look: `limit` must be a number of bytes above 0, got {limit}.")
        return page(self, limit)

    def save(self, path: str | Path, limit: float = 2e6) -> Path:
        """Write the page to a file, whole or not at all.

        Args:
            path: its name, which ends in .html or .htm.
            limit: as for `html`.

        Raises:
            SettingError: another name, or no positive limit.
            RunError: the file cannot be written.
        """
        from ..runs import replacing

        require_page_name(path)
        with replacing(path) as file:
            file.write(self.html(limit).encode())
        return Path(path)

    def _repr_html_(self) -> str:
        from .assembly import notebook

        return notebook(self)


def look(
    model: Any,
    input: Any = None,
    *,
    loss: Callable[[Tensor], Tensor] | None = None,
    output: Callable[[Any], Tensor] | None = None,
    layer: str | None = None,
    required: int | None = None,
    compare: Mapping[str, nn.Module | Sequence[nn.Module]] | None = None,
    title: str = "",
    channels: Sequence[str] = (),
    tokens: Sequence[Sequence[str]] | None = None,
    names: Sequence[str] = (),
    vocabulary: str = "classic",
    film: Sequence[dict[str, Any]] = (),
    seed: int = 0,
) -> Look:
    """Look inside a model that has an LSTM, GRU or RNN: what it stored, what it uses, what it could learn.

    Args:
        model: any module that calls torch's recurrent layers or `longshort.LSTM`; it is looked at in
            evaluation mode and left as it was. Or a fitted `longshort.Forecaster`, with its table as input,
            or a fitted `longshort.LanguageModel`, with a prompt.
        input: what its forward takes: a tensor, or a tuple of arguments; rows for a forecaster, its own if
            None. Thirty sequences or more make good statistics; the page shows the first five.
        loss: what the model returns (through `output`) -> the loss of each sequence and step (N, T), of each
            sequence (N,), or a scalar. Needed for what is used, and for surgery.
        output: picks the tensor that counts out of what the model returns; the first tensor if None.
        layer: whose memory to measure, such as "lstm.l0"; the last one if None.
        required: steps back that the task is known to need; marked in the horizon view.
        compare: other models for the same input, by name, to stand beside this one in the horizon view; a
            list holds one model a seed.
        title: of the page; the model's class if empty.
        channels: names of the channels of the model's own input (N, T, C), or of what its first recurrent
            layer reads.
        tokens: the text at each step of each sequence, for models of text.
        names: of the sequences.
        vocabulary: "classic", "LTM/STM" or "torch"; the page can switch.
        film: what a `Recorder` kept during training.
        seed: of every choice by chance; the same seed gives the same page.

    Returns:
        A Look: `print` it for its findings, `save` it as a page.

    Raises:
        SettingError: no recurrent layer, a loss of another shape, names for another number of channels, or an
            argument outside its range.
        ShapeError: the model refuses the input.
        DataError: an activation is not finite; layer, gate and first step are named. Or the answer is not.
        BackendError: the replay differs from the model.

    Memory: about ten times N T H numbers; past 12 million N T H, gradients go through the last steps only.

    >>> import torch
    >>> made = look(torch.nn.LSTM(2, 3, batch_first=True), torch.randn(8, 20, 2))
    >>> made.trace["lstm.l0.f"].shape
    torch.Size([8, 20, 3])
    """
    given = checked({
        "loss": loss, "output": output, "layer": layer, "required": required, "compare": compare,
        "title": title, "channels": channels, "tokens": tokens, "names": names, "film": film, "seed": seed,
    })  # fmt: skip
    opened = open_model(model, input)
    own = {name: value for name, value in given.items() if value and name not in ("layer", "seed")}
    opened = replace(opened, **own)
    return look_at(opened, layer=layer, vocabulary=vocabulary, seed=seed)


def look_at(
    opened: Opened,
    *,
    layer: str | None = None,
    vocabulary: str = "classic",
    seed: int = 0,
    quiet: bool = True,
) -> Look:
    """Look at what `opening` made ready; the arguments are those of `look`.

    Args:
        opened: a model with its inputs.
        layer: as for `look`.
        vocabulary: as for `look`.
        seed: as for `look`.
        quiet: show nothing; else how much is done, on standard error.

    Raises:
        LongshortError: as `look`.
    """
    if vocabulary not in list(WORDS):
        raise SettingError(f"look: `vocabulary` must be one of {', '.join(WORDS)}, got {vocabulary!r}.")
    specimen = Specimen(opened.model, opened.inputs, opened.output, opened.loss)
    trace = specimen.trace()
    part = trace.layer(layer)
    require_finite_answer(specimen, trace)
    fitting(opened, trace, part)
    fitting_loss(specimen, trace)
    source, asked = _source(opened, trace)
    made = Look(
        opened.title,
        trace,
        part.name,
        {n: half_life(one) for n, one in trace.layers.items() if one.kind != "rnn"},
        {n: health(one) for n, one in trace.layers.items()},
        {},
        name=opened.name,
        required=opened.required,
        source=source,
        asked=asked,
        channels=opened.channels,
        tokens=opened.tokens,
        names=opened.names,
        answer=opened.answer_name,
        vocabulary=vocabulary,
        notes=list(opened.notes),
        film=opened.film,
    )
    made.driven = _driven(trace, made.notes)
    stages = Measuring(made, specimen, opened, seed).stages()
    for name, models in opened.compare.items():
        stages += [partial(_compare, made, name, replace(specimen, model=other), seed) for other in models]
    for stage in followed(stages, "looking", quiet=quiet):
        stage()
    return made


def _source(opened: Opened, trace: Trace) -> tuple[Tensor, str]:
    """What memory is asked about, (N, T, C) numbers or (N, T) symbols, and whose input it is.

    Raises:
        SettingError: names for another number of channels.
    """
    call, count = trace.calls[0], len(opened.channels)
    reads = f"what `{call.name}` reads"
    codes = _codes(opened.tokens, call)
    own = _own(opened, call)
    if own is not None and own.dim() == 3 and count in (0, own.shape[2]):
        return (own, "the model's input") if codes is None else (codes, "the tokens")
    if count not in (0, call.x.shape[2]):
        whose = f"each of the {call.x.shape[2]} channels that `{call.name}` reads"
        if own is not None and own.dim() == 3:
            whose = f"each of the {own.shape[2]} channels of the model's input, or {whose}"
        raise SettingError(f"look: `channels` must name {whose}, got {count} name{'s' if count > 1 else ''}.")
    if codes is not None:
        return codes, "the tokens"
    return (own, "the model's input") if own is not None and own.dim() == 2 else (call.x, reads)


def _own(opened: Opened, call: Call) -> Tensor | None:
    """The model's first input as (N, T, C), or (N, T) symbols, zero in the padding; None where it is not of
    the sequences and steps of the call, or not finite there.
    """
    x = opened.inputs[0] if opened.own and opened.inputs else None
    N, T = call.x.shape[:2]
    if not isinstance(x, Tensor) or x.dim() != (3 if x.is_floating_point() else 2):
        return None
    turned = x.transpose(0, 1)
    order = (x, turned) if call.module.batch_first or N != T else (turned, x)
    found = next((one for one in order if one.shape[:2] == (N, T)), None)
    if found is None or not found[call.mask].isfinite().all():
        return None
    mask = call.mask if found.dim() == 2 else call.mask[..., None]
    return torch.where(mask, found.detach(), torch.zeros((), dtype=found.dtype, device=found.device))


def _driven(trace: Trace, notes: list[str]) -> dict[str, Drivers]:
    found = {}
    for name, layer in trace.layers.items():
        try:
            found[name] = drivers(layer)
        except SettingError as error:
            notes.append(str(error).removeprefix("look: "))
    return found


def _codes(tokens: list[list[str]] | None, call: Call) -> Tensor | None:
    """(N, T) a number for each token, so that a probe may look for symbols; None without tokens."""
    if tokens is None or [len(row) for row in tokens] != [call.x.shape[1]] * len(call.x):
        return None
    known = {word: k for k, word in enumerate(sorted({word for row in tokens for word in row}))}
    return torch.tensor([[known[word] for word in row] for row in tokens])


def _compare(made: Look, name: str, specimen: Specimen, seed: int) -> None:
    """The horizons of another model, or of another seed of one."""
    trace, source = specimen.trace(), made.source
    part = trace.layer()
    fits = source is not None and source.shape[:2] == part.mask.shape
    found = Horizons(
        part.kind,
        flow(specimen, seed=seed),
        stored(part, source if fits else None, seed=seed),
        None if specimen.loss is None else used(specimen, trace=trace),
    )
    made.others.setdefault(name, []).append(found)
