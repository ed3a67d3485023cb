"""`LSTM`: torch.nn.LSTM's arguments, weights and numbers, with every option of `longshort.scan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..scan import Kept, Noise, Options, State, Variant, masks, packings
from ..scan.functional import dropped, gathered, planned_call, run_all
from ..scan.plan import check_name
from ..scan.ragged import Ragged, fold, is_ragged
from . import binding, stepping, torch_weights
from .initialise import Initialiser, by_name
from .parameters import Shape, check_dtype, parameters
from .reading import Read, on_device, read_call

_VARIANT, _SILENT = Variant(), Noise()


class LSTM(nn.Module):
    r"""One or more LSTM layers over whole sequences; a drop-in for torch.nn.LSTM.

    $$c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad h_t = o_t \odot \tanh c_t$$

    The first ten arguments, the names of the parameters, their initial values from the same seed, the
    outputs and the gradients are torch.nn.LSTM's. P is proj_size, or H = hidden_size without one; D is 2 if
    bidirectional, else 1; L = num_layers D.

    Args:
        input_size:    C, channels of the input.
        hidden_size:   H, cells of each layer and direction.
        num_layers:    layers, each fed by the one below.
        bias:          whether there are biases (two, as in torch.nn.LSTM; they act as their sum).
        batch_first:   input is (N, T, C) instead of (T, N, C). The state is (L, N, P) either way.
        dropout:       share of the units silenced between layers in training, new at every step, in [0, 1].
        bidirectional: a second direction in each layer, from the last step of each sequence to the first.
        proj_size:     P, size of the projected h; 0 for none (Sak et al. 2014).
        device:        where the parameters go.
        dtype:         of the parameters.
        variant:       which LSTM; see `longshort.Variant`.
        noise:         rates of dropout inside the recurrence, and of zoneout; see `longshort.scan.Noise`.
        learn_initial: the initial state, that of a first step without `hx` and of a reset, is learned.
        init:          "torch", "longshort", or chrono(longest) or uniform(bound) of `longshort.nn`.
        checkpoint_every: keep only the state at every k-th step for the backward pass.
        backend:       who runs it; `plan` says whom "auto" picks.

    Raises:
        SettingError: an argument is of another type or out of its range.
        BackendError: there is no backend of that name.

    >>> lstm = LSTM(8, 16, num_layers=2)
    >>> y, (h, c) = lstm(torch.zeros(5, 3, 8))
    >>> y.shape, h.shape
    (torch.Size([5, 3, 16]), torch.Size([2, 3, 16]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        variant: Variant = _VARIANT,
        noise: Noise = _SILENT,
        learn_initial: bool = False,
        init: str | Initialiser = "torch",
        checkpoint_every: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self.variant, self.noise, self.learn_initial = variant, noise, learn_initial
        self.checkpoint_every, self.backend = checkpoint_every, backend
        self.init = by_name(init)
        shape = Shape.of(self)
        check_dtype("LSTM", dtype)
        check_name("LSTM", backend)
        self.dropout = float(dropout)
        self._names: list[dict[str, str]] = []
        for k in range(shape.number):
            wanted = parameters(shape, k, variant, bias, learn_initial)
            self._names.append({name: f"{name}{shape.suffix(k)}" for name in wanted})
            for name, size in wanted.items():
                weight = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
                self.register_parameter(f"{name}{shape.suffix(k)}", weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, by `init`."""
        with torch.no_grad():
            self.init(self)

    def forward(
        self,
        input: Tensor | Ragged,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        reset: Tensor | list[list[bool]] | None = None,
        lengths: Tensor | list[int] | None = None,
        initial: tuple[Tensor, Tensor] | None = None,
        keep: str | None = None,
    ) -> Any:
        """Run all layers over whole sequences.

        Args:
            input:   (T, N, C), (N, T, C) with batch_first, (T, C) for one sequence; a PackedSequence, a
                `longshort.scan.Jagged`, or a nested tensor (N, T, C) of layout torch.jagged, whose y has its
                offsets and lengths, and zeros between sequences that leave rows out.
            hx:      state before the first step: h (L, N, P) and c (L, N, H); the initial state if None.
            reset:   (N, T) bool, whatever batch_first; true where a sequence starts step t from its initial
                state. No gradient passes back through that point. The reversed direction starts anew
                between the same two steps.
            lengths: (N,) whole numbers in [0, T]; the steps from there on are padding.
            initial: h (L, N, P) and c (L, N, H) that a reset returns to; the learned state, or zeros.
            keep:    "cells", "gates" or "all": return them for every step too.

        Returns:
            y, laid out as the input, (..., D P); State(h, c) after the last step of each sequence; with
            `keep` also a `Kept` of cells (L, N, T, H) and gates (L, N, T, 4H): of one layer as the way back
            reads them, so that they are written into after it, and of any strides. Feeding the state back in
            continues the sequences.

        A call with the shapes of the one before it costs the host least: it is bound to the weights, see
        `longshort.nn.binding`. The numbers are the same.

        Raises:
            ShapeError:   shapes, dtypes or devices disagree; a packed input with `reset` or `lengths`.
            SettingError: `keep` is none of its choices.
            BackendError: the layer's backend cannot run this call.
        """
        if reset is None and lengths is None and initial is None and keep is None:
            done = binding.run(self, input, hx)
            if done is not None:
                return done
        call = read_call(self, input, hx, reset, lengths, initial, keep)
        if call.hx is None and call.initial is None:
            call = call._replace(hx=binding.first_state(self, call.x))
        seeds = self._seeds(call.x)
        layers: list[Any] = []
        x = call.x
        for layer in range(self.num_layers):
            outs = run_all([self._asked(call, x, k, seeds) for k in self._places(layer)])
            layers += outs
            x = outs[0].y if len(outs) == 1 else torch.cat([o.y for o in outs], dim=-1)
            if seeds is not None and self.dropout and layer < self.num_layers - 1:
                x = self._dropped(x, seeds[-1 - layer])
        state = State(_stacked([o.h for o in layers]), _stacked([o.c for o in layers]))
        return self._laid_out(call, input, x, state, layers)

    def _asked(self, call: Read, x: Tensor, k: int, seeds: Tensor | None) -> tuple[Options, Any]:
        """The call of layer and direction k over x (N, T, C)."""
        reverse = self.bidirectional and k % 2 == 1
        options = self._options(call, reverse)
        return options, self._given(options, call, x, k, None if seeds is None else seeds[k])

    def _options(self, call: Read, reverse: bool) -> Options:
        noise = self.noise if self.training or self.noise.silent else self.noise.evaluated
        return Options(
            self.variant, noise, self.training, reverse, *call.keep, self.checkpoint_every, self.backend
        )

    def _given(self, options: Options, call: Read, x: Tensor, k: int, seed: Tensor | None) -> Any:
        h, c = (None, None) if call.hx is None else (call.hx[0][k], call.hx[1][k])
        w = self._weights(k)
        more: dict[str, Any] = {}
        if call.initial is not None:
            more["initial"] = State(call.initial[0][k], call.initial[1][k])
        if "initial_h" in w:
            rows, learned = x.shape[0], State(w.pop("initial_h"), w.pop("initial_c"))
            more.setdefault("initial", State(learned.h.expand(rows, -1), learned.c.expand(rows, -1)))
        if call.reset is not None:
            more["reset"] = call.reset_reverse if options.reverse else call.reset
        w_ih, w_hh = w.pop("weight_ih"), w.pop("weight_hh")
        bias = w.pop("bias_ih") + w.pop("bias_hh") if self.bias else None
        for name, weight in w.items():
            more[stepping.SCAN_NAME.get(name, name)] = weight
        return gathered(options, x, w_ih, w_hh, bias, h, c, seed=seed, lengths=call.lengths, **more)

    def _weights(self, k: int) -> dict[str, Tensor]:
        """The parameters of layer and direction k, without their suffix."""
        own: dict[str, Any] = self._parameters  # but for a parametrised one, which is a property
        return {n: own[full] if full in own else getattr(self, full) for n, full in self._names[k].items()}

    def _places(self, layer: int) -> range:
        directions = 2 if self.bidirectional else 1
        return range(layer * directions, (layer + 1) * directions)

    def _seeds(self, x: Tensor) -> Tensor | None:
        """One key for each layer and direction and each dropout; from torch's CPU generator."""
        if not self.training or (self.noise.silent and not self.dropout):
            return None
        return masks.seeds((len(self._names) + self.num_layers,), x.device)

    def _dropped(self, x: Tensor, seed: Tensor) -> Tensor:
        if self.dropout >= 1:
            return x * 0
        return dropped(x, self.dropout, seed, self.backend)

    def _laid_out(
        self, call: Read, input: Tensor | Ragged, y: Tensor, state: State, layers: list[Any]
    ) -> Any:
        """Give everything the layout of the input."""
        out: Any = y
        if is_ragged(input):
            out = fold(y, input)
        elif not self.batch_first:
            out = y.transpose(0, 1)
        if not call.batched:
            out, state = out.squeeze(0 if self.batch_first else 1), State(state.h[:, 0], state.c[:, 0])
        if call.keep == (False, False):
            return out, state
        columns = ([o.cells for o in layers], [o.gates for o in layers])
        kept = [_stacked(c) if c[0] is not None else None for c in columns]
        return out, state, Kept(*(k if k is None or call.batched else k[:, 0] for k in kept))

    def step(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, State]:
        """Take one step; any number of them equals `forward` over the whole.

        Args:
            x:     (N, C), or (C,) for one sequence.
            state: h (L, N, P) and c (L, N, H), or (L, P) and (L, H); the initial state if None.

        Returns:
            y (N, P) and the new State. In evaluation without gradients this costs the host least.

        Raises:
            SettingError: the layer is bidirectional, so no step stands alone.
            ShapeError:   shapes, dtypes or devices disagree.
        """
        return stepping.step(self, x, state)

    def initial_state(self, N: int) -> State:
        """Return the state before the first step, (L, N, P) and (L, N, H): learned, or zeros.

        Args:
            N: sequences.
        """
        like = self._weights(0)["weight_hh"]
        h, c = stepping.initial(self, N, like)
        return State(h, c)

    def plan(self, input: Tensor | Ragged, **call: Any) -> Plans:
        """Say who would run `forward` with these arguments, why not a faster backend, and the bytes kept.

        Args:
            input: as in `forward`. It and the other tensors may be on the meta device, where they have no
                numbers: the plan is then that of the same on the layer's own device.
            **call: as in `forward`.

        Returns:
            One `Plan` for each layer and direction; printing it gives one line each and the sum.
        """
        names = ("hx", "reset", "lengths", "initial", "keep")
        device = self._weights(0)["weight_ih"].device
        given = [on_device(one, device) for one in (input, *(call.get(name) for name in names))]
        read = read_call(self, *given)
        plans = []
        for k, options, given in self._calls(read):
            name = f"layer {k // len(self._places(0))}{' reversed' if options.reverse else ''}"
            plans.append((name, planned_call(options, given)))
        return Plans(plans)

    def _calls(self, call: Read) -> Iterator[tuple[int, Options, Any]]:
        """Yield the calls of all layers and directions, with nothing in the outputs of those below."""
        seeds, x, directions = self._seeds(call.x), call.x, len(self._places(0))
        for k in range(len(self._names)):
            if k and not k % directions:
                x = x.new_empty(*x.shape[:2], directions * (self.proj_size or self.hidden_size))
            options = self._options(call, bool(k % directions))
            yield k, options, self._given(options, call, x, k, None if seeds is None else seeds[k])

    def flatten_parameters(self) -> None:
        """Do nothing: there is no flat buffer; kept for code written for torch.nn.LSTM."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction, as torch.nn.LSTM lists them."""
        return [list(self._weights(k).values()) for k in range(len(self._names))]

    @classmethod
    def from_torch(cls, module: nn.LSTM, **options: Any) -> Self:
        """Return a layer with a torch.nn.LSTM's arguments and a copy of its weights; same numbers.

        Args:
            module: the layer to copy.
            **options: further arguments of this class, such as `backend`.

        Raises:
            SettingError: `module` is no torch.nn.LSTM.
        """
        return torch_weights.from_torch(cls, module, **options)

    def to_torch(self) -> nn.LSTM:
        """Return a torch.nn.LSTM with a copy of the weights; same numbers.

        Raises:
            SettingError: the layer has options that torch.nn.LSTM lacks; they are named.
        """
        return torch_weights.to_torch(self)

    def __setattr__(self, name: str, value: Any) -> None:
        self._forget()
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._let_go()  # of the memory that the weights leave
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        return moved

    def _load_from_state_dict(self, *args: Any, **named: Any) -> None:
        self._let_go()
        super()._load_from_state_dict(*args, **named)

    def _forget(self) -> None:
        for name in binding.FORGOTTEN:
            self.__dict__.pop(name, None)

    def _let_go(self) -> None:
        self._forget()
        packings.forget(self.parameters())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in binding.FORGOTTEN}

    def extra_repr(self) -> str:
        """The arguments that differ from the defaults, as in torch.nn.LSTM."""
        words = [f"{self.input_size}, {self.hidden_size}"]
        order = sorted(torch_weights.DEFAULTS.items(), key=lambda item: item[0] != "proj_size")
        words += [f"{name}={getattr(self, name)}" for name, value in order if getattr(self, name) != value]
        words += [str(self.variant)] if self.variant != _VARIANT else []
        words += [str(self.noise)] if not self.noise.silent else []
        return ", ".join(words)


def _stacked(each: list[Tensor]) -> Tensor:
    return each[0].unsqueeze(0) if len(each) == 1 else torch.stack(each)


class Plans(list[tuple[str, Any]]):
    """The plan of each layer and direction, by name."""

    @property
    def kept_bytes(self) -> int:
        """What training keeps in all layers and directions together."""
        return sum(plan.kept_bytes for _, plan in self)

    def __str__(self) -> str:
        lines = [f"{name}: {plan}" for name, plan in self]
        return "\n".join(lines if len(lines) == 1 else [*lines, f"in all {self.kept_bytes:,} bytes"])
