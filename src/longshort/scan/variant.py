"""Which LSTM: one frozen object, each option named with the paper it comes from.

The options are orthogonal: each one changes the lines of `definition.py` that it names, and any of them
may be combined unless the combination says nothing (a coupled forget gate where there is no input gate).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..errors import SettingError
from ..settings import Settings, setting

NORMS = ("none", "ba2016", "per_gate", "products")
"""Published forms of layer normalisation; `definition.py`, equations (2) and (9)."""


@dataclass(frozen=True, kw_only=True)
class Variant(Settings):
    """One published LSTM, or a combination of several. The default is torch.nn.LSTM's.

    Raises:
        SettingError: a value outside its range, or two options that contradict each other.

    >>> Variant(peephole=True).gates
    ('i', 'f', 'g', 'o')
    >>> Variant(coupled=True).gates
    ('i', 'g', 'o')
    """

    peephole: bool = setting(False, "The gates see the cell (Gers & Schmidhuber 2000).")
    coupled: bool = setting(False, "The forget gate is one minus the input gate (Greff et al. 2017, CIFG).")
    input_gate: bool = setting(True, "Without it i = 1 (Greff et al. 2017, NIG).")
    forget_gate: bool = setting(True, "Without it f = 1 (Hochreiter & Schmidhuber 1997; Greff, NFG).")
    output_gate: bool = setting(True, "Without it o = 1 (Greff et al. 2017, NOG).")
    input_activation: bool = setting(True, "Without it g is linear (Greff et al. 2017, NIAF).")
    output_activation: bool = setting(True, "Without it h = o c (Greff et al. 2017, NOAF).")
    gate_recurrence: bool = setting(
        False, "The gates also see the gates of the step before (Hochreiter & Schmidhuber 1997; Greff, FGR)."
    )
    norm: str = setting(
        "none",
        "Layer norm: 'ba2016' (Ba et al. 2016: both products and the cell on its way out), 'per_gate' "
        "(TensorFlow's LayerNormBasicLSTMCell: each gate and the stored cell), 'products' (both products).",
        choices=NORMS,
    )
    norm_eps: float = setting(1e-5, "Added to the variance by the layer norm.", above=0, most=1)
    cell_clip: float | None = setting(None, "The cell stays within plus and minus this (Sak 2014).", above=0)
    projection_clip: float | None = setting(
        None, "The projected h stays within plus and minus this (Sak 2014).", above=0
    )
    gate_activation: str = setting(
        "sigmoid",
        "'hard_sigmoid' is clip(0.2 a + 0.5, 0, 1), the gates of Keras before 3.",
        choices=("sigmoid", "hard_sigmoid"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coupled and not (self.input_gate and self.forget_gate):
            gone = "forget_gate" if self.input_gate else "input_gate"
            raise SettingError(
                f"Variant: `coupled` makes the forget gate of the input gate, and `{gone}` is False. "
                f"Leave out `coupled`, or keep both gates."
            )
        for name in ("peephole", "gate_recurrence"):
            if getattr(self, name) and not self.sigmoids:
                raise SettingError(
                    f"Variant: `{name}` leads to the gates i, f and o, and all three are switched off. "
                    f"Leave out `{name}`, or keep a gate."
                )

        for name in ("gates", "sigmoids", "weights", "key"):
            getattr(self, name)  # made now: torch.compile reads a cached property, but cannot fill it

    @cached_property
    def gates(self) -> tuple[str, ...]:
        """The blocks of rows in w_ih, w_hh and bias, in order: of i, f, g, o those that are computed."""
        absent = {
            "i": not self.input_gate,
            "f": self.coupled or not self.forget_gate,
            "g": False,
            "o": not self.output_gate,
        }
        return tuple(gate for gate in "ifgo" if not absent[gate])

    @cached_property
    def sigmoids(self) -> tuple[str, ...]:
        """The computed gates other than g: the blocks of `peephole` and of `w_gates`, in order."""
        return tuple(gate for gate in self.gates if gate != "g")

    @cached_property
    def weights(self) -> dict[str, str]:
        """The weights this variant needs beyond w_ih, w_hh and bias, each with its shape.

        G is the number of `gates`, S the number of `sigmoids`. The projection `w_hr` is not among them:
        every variant may have one.
        """
        gates, sigmoids = f"{len(self.gates)}H", f"{len(self.sigmoids)}H"
        needed = {}
        if self.peephole:
            needed["peephole"] = sigmoids
        if self.gate_recurrence:
            needed["w_gates"] = f"{sigmoids} {sigmoids}"
        if self.norm in ("ba2016", "products"):
            needed["gain_ih"] = gates
        if self.norm != "none":
            needed["gain_hh"] = gates
        if self.norm in ("ba2016", "per_gate"):
            needed["gain_c"] = needed["shift_c"] = "H"
        return needed

    @cached_property
    def key(self) -> str:
        """The options as one word, so that a graph of torch.compile can carry them; see `from_key`."""
        return json.dumps(self.to_json(), separators=(",", ":"))

    @staticmethod
    @lru_cache(maxsize=256)
    def from_key(key: str) -> Variant:
        """Return the variant of that `key`."""
        return Variant.from_json(json.loads(key))

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        default = Variant()
        changed = {k: v for k, v in self.to_json().items() if v != getattr(default, k)}
        return "Variant(" + ", ".join(f"{k}={v!r}" for k, v in changed.items()) + ")"
