"""The plain LSTM in NumPy, forward and back, in float64: what the engine must agree with."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def forward(x, w_ih, w_hh, bias, h, c, reset=None, lengths=None):
    """y (N, T, H), h, c and the steps that `backward` walks back over."""
    N, T, _ = x.shape
    steps, y = [], np.zeros((N, T, h.shape[1]))
    for t in range(T):
        again = np.zeros((N, 1), bool) if reset is None else reset[:, t, None]
        on = np.ones((N, 1), bool) if lengths is None else (t < lengths)[:, None]
        again = again & on
        h_old, c_old = np.where(again, 0, h), np.where(again, 0, c)
        a = x[:, t] @ w_ih.T + h_old @ w_hh.T + bias
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c_new = f * c_old + i * g
        h_new = o * np.tanh(c_new)
        steps.append((t, again, on, h_old, c_old, i, f, g, o, c_new))
        h, c = np.where(on, h_new, h), np.where(on, c_new, c)
        y[:, t] = np.where(on, h_new, 0)
    return y, h, c, steps


def backward(x, w_ih, w_hh, steps, dy, dh, dc):
    """The gradients by name."""
    found = {"x": np.zeros_like(x), "w_ih": np.zeros_like(w_ih), "w_hh": np.zeros_like(w_hh)}
    found["bias"] = np.zeros(w_ih.shape[0])
    for t, again, on, h_old, c_old, i, f, g, o, c_new in reversed(steps):
        dh_new, squashed = dh + dy[:, t], np.tanh(c_new)
        dc_new = dc + dh_new * o * (1 - squashed**2)
        da = np.concatenate(
            (
                dc_new * g * i * (1 - i),
                dc_new * c_old * f * (1 - f),
                dc_new * i * (1 - g**2),
                dh_new * squashed * o * (1 - o),
            ),
            axis=1,
        )
        da = np.where(on, da, 0)
        found["x"][:, t] = da @ w_ih
        found["w_ih"] += da.T @ np.where(on, x[:, t], 0)
        found["w_hh"] += da.T @ h_old
        found["bias"] += da.sum(0)
        dh, dc = np.where(on, da @ w_hh, dh), np.where(on, dc_new * f, dc)
        dh, dc = np.where(again, 0, dh), np.where(again, 0, dc)
    return found | {"h": dh, "c": dc}
