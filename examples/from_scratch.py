"""One LSTM in NumPy alone: forwards, backwards, its gradient checked, and a language learned to the end.

    python examples/from_scratch.py

The language is aⁿbⁿ: some letters a, then as many letters b, then the end. The network reads a string letter
by letter and says which letter comes next. While it reads a's nobody can know whether another a follows,
but from the first b on everything is certain, if one has counted. The cell of the LSTM learns to count.

Shapes: N strings, T letters, C kinds of letter, H hidden units.
"""

import numpy as np

LETTERS = "abE"  # E is the end
C, H = len(LETTERS), 6


# 1. The equations, from t - 1 to t.
#
#        a = W_ih x_t + W_hh h_{t-1} + b            four blocks of H numbers: i, f, g, o
#        i = σ(a_i)   f = σ(a_f)   g = tanh(a_g)   o = σ(a_o)
#        c_t = f c_{t-1} + i g                      keep a part f of the old cell, add a part i of the new
#        h_t = o tanh(c_t)                          show a part o of it


def sigmoid(a):
    return 0.5 * (1 + np.tanh(0.5 * a))  # the same as 1 / (1 + exp(-a)), and never overflows


def lstm(x, w, h, c):
    """Read x (N, T, C) from the state h, c (N, H).

    Returns h after every step (N, T, H), the last h and c, and a tape of all that the way back needs.
    """
    tape, hs = [], []
    for t in range(x.shape[1]):
        a = x[:, t] @ w["w_ih"].T + h @ w["w_hh"].T + w["bias"]
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        before = h, c
        c = f * c + i * g
        h = o * np.tanh(c)
        tape.append((x[:, t], *before, i, f, g, o, c))
        hs.append(h)
    return np.stack(hs, axis=1), h, c, tape


# 2. The way back. Every line of the forward pass has its mirror here, in the opposite order. A name with a d
#    is the derivative of the loss with respect to what the name says. What h_t and c_t do later arrives as
#    dh and dc; the sum over all that a number does is what it owes.


def lstm_backward(dhs, dh, dc, tape, w):
    """Return the derivatives with respect to x, the weights, and the first h and c.

    dhs (N, T, H) is the derivative with respect to each h_t as an output; dh and dc (N, H) those of the last
    state, zero if nothing uses it.
    """
    dw = {name: np.zeros_like(value) for name, value in w.items()}
    dxs = []
    for t in reversed(range(len(tape))):
        x, h_before, c_before, i, f, g, o, c = tape[t]
        dh = dh + dhs[:, t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)  # h_t = o tanh(c_t)
        do = dh * np.tanh(c)
        di, df, dg = dc * g, dc * c_before, dc * i  # c_t = f c_{t-1} + i g
        da = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
        dw["w_ih"] += da.T @ x
        dw["w_hh"] += da.T @ h_before
        dw["bias"] += da.sum(0)
        dxs.append(da @ w["w_ih"])
        dh = da @ w["w_hh"]  # what h_{t-1} owes for this step
        dc = dc * f  # what c_{t-1} owes: the path on which nothing vanishes while f is near 1
    return np.stack(dxs[::-1], axis=1), dw, dh, dc


def new_weights(seed, C=C, H=H):
    """Small random weights. The forget gate starts open, so that the cell remembers from the first day."""
    random = np.random.default_rng(seed)
    w = {"w_ih": random.normal(0, 0.3, (4 * H, C)), "w_hh": random.normal(0, 0.3, (4 * H, H))}
    w["bias"] = np.zeros(4 * H)
    w["bias"][H : 2 * H] = 1
    return w


# 3. The loss: how surprised the network was by each next letter.


def strings(ns):
    """The strings for these n: one-hot letters x, the letters that follow, and where there are letters."""
    texts = ["a" * n + "b" * n + "E" for n in ns]
    T = max(map(len, texts)) - 1
    x, following, seen = np.zeros((len(ns), T, C)), np.zeros((len(ns), T), int), np.zeros((len(ns), T), bool)
    for k, text in enumerate(texts):
        places = [LETTERS.index(letter) for letter in text]
        x[k, range(len(text) - 1), places[:-1]] = 1
        following[k, : len(text) - 1] = places[1:]
        seen[k, : len(text) - 1] = True
    return x, following, seen


def loss_and_gradient(w, head, x, following, seen):
    """The mean surprise in nats, and its derivative with respect to every weight of the LSTM and the head."""
    N = len(x)
    hs, _, _, tape = lstm(x, w, np.zeros((N, H)), np.zeros((N, H)))
    scores = hs @ head.T
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    right = np.take_along_axis(p, following[..., None], axis=-1)[..., 0]
    loss = -np.log(right[seen]).mean()

    dscores = (p - np.eye(C)[following]) * seen[..., None] / seen.sum()  # softmax and logarithm together
    dhead = np.einsum("ntc,nth->ch", dscores, hs)
    _, dw, _, _ = lstm_backward(dscores @ head, np.zeros((N, H)), np.zeros((N, H)), tape, w)
    return loss, dw, dhead


def largest_error_of_gradient(seed=0):
    """Move each weight a little, see how the loss moves, and compare with the derivative."""
    w, head = new_weights(seed), np.random.default_rng(seed).normal(0, 0.3, (C, H))
    data = strings([1, 3])
    _, dw, dhead = loss_and_gradient(w, head, *data)
    worst, step = 0.0, 1e-5
    for value, derivative in [*((w[name], dw[name]) for name in w), (head, dhead)]:
        for place in np.ndindex(value.shape):
            at = value[place]
            value[place] = at + step
            above = loss_and_gradient(w, head, *data)[0]
            value[place] = at - step
            below = loss_and_gradient(w, head, *data)[0]
            value[place] = at
            worst = max(worst, abs((above - below) / (2 * step) - derivative[place]))
    return worst


# 4. Learning: follow the derivative downhill. Adam gives each weight a step of its own.


def train(seed=0, most=1500, longest=10):
    """Train on aⁿbⁿ up to n = `longest` until n + 2 is right too. Return weights, head and steps taken."""
    w, head = new_weights(seed), np.random.default_rng(seed).normal(0, 0.3, (C, H))
    weights = [*w.values(), head]
    means, squares = ([np.zeros_like(v) for v in weights] for _ in range(2))
    data = strings(range(1, longest + 1))
    for step in range(1, most + 1):
        _, dw, dhead = loss_and_gradient(w, head, *data)
        for k, (value, d) in enumerate(zip(weights, [*dw.values(), dhead], strict=True)):
            means[k] += 0.1 * (d - means[k])
            squares[k] += 0.01 * (d**2 - squares[k])
            value -= 0.02 * (means[k] / (1 - 0.9**step)) / (np.sqrt(squares[k] / (1 - 0.99**step)) + 1e-8)
        if step % 50 == 0 and right_up_to(w, head, longest + 2) > longest + 1:
            break
    return w, head, step


def right_up_to(w, head, most):
    """The largest n, up to `most`, up to which every letter after the first b is predicted."""
    for n in range(1, most + 1):
        x, following, _ = strings([n])
        hs, *_ = lstm(x, w, np.zeros((1, H)), np.zeros((1, H)))
        if ((hs @ head.T).argmax(-1) != following)[0, n:].any():
            return n - 1
    return most


def main():
    print(f"gradient: largest error against a finite difference {largest_error_of_gradient():.1e}")
    w, head, steps = train()
    print(f"learned after {steps} steps: right up to n = {right_up_to(w, head, 100)}, trained up to n = 10")
    n = 7
    x, *_ = strings([n])
    hs, *_, tape = lstm(x, w, np.zeros((1, H)), np.zeros((1, H)))
    cells = np.stack([step[-1][0] for step in tape])
    unit = np.abs(np.diff(cells, axis=0)).mean(0).argmax()
    guesses = (hs @ head.T).argmax(-1)[0]
    print(f"what cell {unit} holds as it reads a^{n}b^{n}:")
    for t, letter in enumerate("a" * n + "b" * n):
        value = cells[t, unit]
        print(f"  {letter}  {value:+7.2f}  {'#' * round(4 * abs(value)):<40s} next: {LETTERS[guesses[t]]}")


if __name__ == "__main__":
    main()
