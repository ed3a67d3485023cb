"""The LSTM of from_scratch.py in Keras, with the same weights: the same numbers and the same gradients.

    KERAS_BACKEND=torch python examples/with_keras.py

Keras stacks the gates in the same order, but its kernels are turned, and it has one bias where torch has
two. longshort.exchange does the turning. Keras runs on its torch backend here, so torch finds its gradients.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch

import from_scratch
from longshort import exchange
from with_torch import as_layer, by_hand, largest_difference


def by_keras(layer, x, probe):
    """Outputs and gradients of the loss sum(probe * h) from a keras.layers.LSTM."""
    x = torch.tensor(x, requires_grad=True)
    hs, h, c = layer(x)
    (hs * torch.tensor(probe)).sum().backward()
    kernel, recurrent, bias = (weight.value.grad for weight in layer.trainable_weights)
    found = {"h_t": hs, "h": h, "c": c, "dx": x.grad, "dw_ih": kernel.T, "dw_hh": recurrent.T, "dbias": bias}
    return {name: value.detach().numpy() for name, value in found.items()}


def main():
    w, _, steps = from_scratch.train()
    print(f"NumPy learned a^n b^n in {steps} steps")
    x, _, _ = from_scratch.strings([2, 5, 9])
    probe = np.random.default_rng(1).normal(size=(*x.shape[:2], from_scratch.H))

    layer = keras.layers.LSTM(from_scratch.H, return_sequences=True, return_state=True, dtype="float64")
    layer.build((None, None, from_scratch.C))
    layer.set_weights(exchange.to_keras_weights(as_layer(w))[0])
    difference = largest_difference(by_hand(w, x, probe), by_keras(layer, x, probe))
    print(f"keras.layers.LSTM: outputs, states and gradients differ by {difference:.1e} at most")

    back = exchange.from_keras_weights(layer.get_weights())
    same = all(torch.equal(a, b) for a, b in zip(back.parameters(), as_layer(w).parameters(), strict=True))
    print(f"and back again: the weights are {'the same, bit for bit' if same else 'others'}")


if __name__ == "__main__":
    main()
