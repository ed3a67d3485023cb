"""The LSTM of from_scratch.py in PyTorch, with the same weights: the same numbers and the same gradients.

    python examples/with_torch.py

What NumPy learned is handed to longshort.LSTM, and from there to torch.nn.LSTM. Both must say what the
hand-written loops say, on the way forward and on the way back.
"""

import numpy as np
import torch

import from_scratch
import longshort
from longshort import exchange


def as_layer(w):
    """The NumPy weights in a longshort.LSTM, whose parameters are torch.nn.LSTM's: there are two biases."""
    rows, C = w["w_ih"].shape
    layer = longshort.LSTM(C, rows // 4, batch_first=True, dtype=torch.float64)
    weights = {"weight_ih_l0": w["w_ih"], "weight_hh_l0": w["w_hh"], "bias_ih_l0": w["bias"]}
    weights["bias_hh_l0"] = np.zeros_like(w["bias"])
    layer.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    return layer


def by_hand(w, x, probe):
    """Outputs and gradients of the loss sum(probe * h), from the loops of from_scratch.py."""
    N, H = len(x), probe.shape[2]
    zero = np.zeros((N, H))
    hs, h, c, tape = from_scratch.lstm(x, w, zero, zero)
    dx, dw, _, _ = from_scratch.lstm_backward(probe, zero, zero, tape, w)
    return {
        "h_t": hs,
        "h": h,
        "c": c,
        "dx": dx,
        "dw_ih": dw["w_ih"],
        "dw_hh": dw["w_hh"],
        "dbias": dw["bias"],
    }


def by_torch(layer, x, probe):
    """The same from a layer with torch.nn.LSTM's parameters; torch finds the gradients itself."""
    x = torch.tensor(x, requires_grad=True)
    hs, (h, c) = layer(x)
    (hs * torch.tensor(probe)).sum().backward()
    found = {"h_t": hs, "h": h[0], "c": c[0], "dx": x.grad, "dw_ih": layer.weight_ih_l0.grad}
    found |= {"dw_hh": layer.weight_hh_l0.grad, "dbias": layer.bias_ih_l0.grad}
    return {name: value.detach().numpy() for name, value in found.items()}


def largest_difference(one, other):
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def main():
    w, _, steps = from_scratch.train()
    print(f"NumPy learned a^n b^n in {steps} steps")
    x, _, _ = from_scratch.strings([2, 5, 9])
    probe = np.random.default_rng(1).normal(size=(*x.shape[:2], from_scratch.H))
    expected = by_hand(w, x, probe)
    ours = as_layer(w)
    theirs = exchange.to_torch(ours)
    for name, layer in (("longshort.LSTM", ours), ("torch.nn.LSTM", theirs)):
        difference = largest_difference(expected, by_torch(layer, x, probe))
        print(f"{name}: outputs, states and gradients differ by {difference:.1e} at most")


if __name__ == "__main__":
    main()
