"""The network: an LSTM reads a window step by step, and answers at any step with quantiles of the next ones.

    x_t  = squash[z_t, known_t, z_t - z_{t-m}, z_{t+1-m}, covariates_t]           (1)
    h_t  = LSTM(x_t, h_{t-1})                                                     (2)
    b_tk = candidates for z_{t+k}: the last value; for each season m the value of
           the last season, that plus the growth of a season, the value of the
           season before plus the growth of two, and the value of the last
           season plus z_t's own distance from its season before                  (3)
    u_tk = relu(V relu(W h_t + e_k + U squash[b_tk] + F covariates_{t+k}))        (4)
    median_tk = softmax(A u_tk) . b_tk + a u_tk                                   (5)
    quantiles = median -/+ cumulated softplus(G u_tk)                             (6)

z is the target on the window's own scale, m a season, k = 1 ... horizon, squash(x) = sign(x) log(1 + |x|).
By (5) the untrained network is near the mean of the naive forecasts, which training then corrects; by (6)
quantiles cannot cross. Nothing in (1) to (6) reads z beyond t.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...nn import LSTM
from .plan import Plan
from .settings import LEVELS, ForecastSettings
from .windows import Windows, channels

HALF = len(LEVELS) // 2
"""The place of the median among the quantiles."""
WIDTH = 64
"""Units of the head."""


class ForecastModel(nn.Module):
    """Windows in, quantiles out.

    Args:
        plan: horizon, seasons and channels.
        settings: sizes and dropout.
    """

    def __init__(self, plan: Plan, settings: ForecastSettings) -> None:
        super().__init__()
        self.horizon, self.seasons, self.lookback = plan.horizon, plan.seasons, plan.lookback
        sizes = channels(plan)
        self.codes = nn.ModuleDict()
        wide = dict.fromkeys(("past", "future", "static"), 0)
        for role in wide:
            tables = [nn.Embedding(n + 1, min(8, (n + 3) // 2)) for _, n in plan.coded[role]]
            self.codes[role] = nn.ModuleList(tables)
            wide[role] = sum(table.embedding_dim for table in tables)
        ahead = sizes["ahead"] + wide["future"]
        inputs = 2 + 2 * len(self.seasons) + sizes["seen"] + wide["past"] + ahead
        inputs += sizes["static"] + wide["static"]
        dropout = settings.dropout if settings.layers > 1 else 0.0
        self.lstm = LSTM(inputs, settings.hidden, settings.layers, batch_first=True, dropout=dropout)
        self.candidates = 1 + 4 * len(self.seasons)
        self.dropout = nn.Dropout(settings.dropout)
        self.from_state = nn.Linear(settings.hidden, WIDTH)
        self.from_step = nn.Parameter(0.1 * torch.randn(plan.horizon, WIDTH))
        self.from_candidates = nn.Linear(self.candidates, WIDTH, bias=False)
        self.from_ahead = nn.Linear(ahead, WIDTH, bias=False) if ahead else None
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, self.candidates + len(LEVELS))
        self._start()

    def _start(self) -> None:
        """Forget gates begin open, candidates equally weighted, intervals narrow."""
        with torch.no_grad():
            for name, bias in self.lstm.named_parameters():
                if name.startswith("bias"):
                    bias.zero_()
                if name.startswith("bias_ih"):
                    bias[len(bias) // 4 : len(bias) // 2] = 1
            nn.init.normal_(self.out.weight, std=0.02)
            self.out.bias.zero_()
            self.out.bias[self.candidates + 1 :] = -2

    def forward(self, windows: Windows, places: Tensor) -> Tensor:
        """Quantiles of the next `horizon` steps, on the windows' scale, as known at some steps.

        Args:
            windows: N windows of T steps read.
            places: (P,) int64, the steps (0 to T - 1) at which to answer.

        Returns:
            (N, P, horizon, quantiles), rising along the last axis.
        """
        h, _ = self.read(windows)
        return self.answer(windows, h[:, places], places)

    def read(self, windows: Windows, state: Any = None) -> tuple[Tensor, Any]:
        """Read the windows from a state on: h (N, T, hidden) after every step, and the state after the last.

        Reading rows in parts, each with the state of the one before, gives the h of reading them at once.
        """
        h, state = self.lstm(self._inputs(windows), state)
        return h, state

    def answer(self, windows: Windows, h: Tensor, places: Tensor) -> Tensor:
        """Equations (3) to (6) at `places`, for h (N, P, hidden) there."""
        candidates = self._candidates(windows, places)
        ahead = places[:, None] + torch.arange(1, self.horizon + 1, device=places.device)
        u = self.from_state(self.dropout(h))[:, :, None] + self.from_step
        u = u + self.from_candidates(_squash(_relative(candidates)))
        if self.from_ahead is not None:
            u = u + self.from_ahead(self._ahead(windows)[:, ahead])
        u = self.dropout(functional.relu(self.middle(functional.relu(u))))
        out = self.out(u).float()
        weights = out[..., : self.candidates].softmax(-1)
        median = (weights * candidates).sum(-1, keepdim=True) + out[..., self.candidates, None]
        gaps = functional.softplus(out[..., self.candidates + 1 :])
        low = median - gaps[..., :HALF].cumsum(-1).flip(-1)
        return torch.cat([low, median, median + gaps[..., HALF:].cumsum(-1)], -1)

    def _inputs(self, windows: Windows) -> Tensor:
        B, z, known = self.lookback, windows.values, windows.known
        T = z.shape[1] - B
        parts = [z[:, B:], known[:, B:]]
        for m in self.seasons:
            both = known[:, B:] * known[:, B - m : B - m + T]
            parts += [(z[:, B:] - z[:, B - m : B - m + T]) * both, z[:, B - m + 1 : B - m + 1 + T]]
        rest = [windows.seen, *self._embedded("past", windows.seen_codes), self._ahead(windows)[:, :T]]
        static = [windows.static, *self._embedded("static", windows.static_codes)]
        rest += [part[:, None].expand(-1, T, -1) for part in static]
        return _squash(torch.cat([torch.stack(parts, -1), *rest], -1))

    def _ahead(self, windows: Windows) -> Tensor:
        return torch.cat([windows.ahead, *self._embedded("future", windows.ahead_codes)], -1)

    def _embedded(self, role: str, codes: Tensor) -> list[Tensor]:
        return [table(codes[..., k]) for k, table in enumerate(self.codes[role].children())]

    def _candidates(self, windows: Windows, places: Tensor) -> Tensor:
        """(N, P, horizon, candidates) of equation (3); where a value is missing, the next best one."""
        z, known, now = windows.values, windows.known, places + self.lookback
        N, P, k = z.shape[0], len(places), torch.arange(1, self.horizon + 1, device=z.device)
        last = _filled(z, known)[:, now]
        last = last[:, :, None].expand(N, P, self.horizon)
        found = [last]
        for m in self.seasons:
            times = (k + m - 1) // m
            then = now[:, None] + k - m * times
            before = (then - m).clamp(min=0)
            seasonal = _first(z, known, then, _first(z, known, before, last))
            earlier = _first(z, known, before, seasonal)
            both = known[:, now] * known[:, now - m]
            shift = (z[:, now] - z[:, now - m]) * both
            growth = _growth(z, known, now, m)
            found += [seasonal, earlier + growth[:, :, None] * (times + 1)]
            found += [seasonal + growth[:, :, None] * times, seasonal + shift[:, :, None]]
        return torch.stack(found, -1)


def _squash(x: Tensor) -> Tensor:
    return x.sign() * x.abs().log1p()


def _relative(candidates: Tensor) -> Tensor:
    """The second candidate as it is, the others by their distance from it."""
    second = candidates[..., 1:2]
    return torch.cat([second, candidates[..., :1] - second, candidates[..., 2:] - second], -1)


def _first(z: Tensor, known: Tensor, rows: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(known[:, rows] > 0, z[:, rows], otherwise)


def _filled(z: Tensor, known: Tensor) -> Tensor:
    """Each value, or the last known one before it; 0, the mean of the context, before the first."""
    steps = torch.arange(z.shape[1], device=z.device).expand_as(z)
    place = torch.where(known > 0, steps, torch.zeros_like(steps)).cummax(1).values
    return z.gather(1, place) * known.gather(1, place)


def _growth(z: Tensor, known: Tensor, now: Tensor, season: int) -> Tensor:
    """(N, P) mean of the last season less that of the one before; 0 unless half of both is known."""
    total = functional.pad((z * known).cumsum(1), (1, 0))
    count = functional.pad(known.cumsum(1), (1, 0))
    late, middle, early = now + 1, now + 1 - season, now + 1 - 2 * season
    counts = count[:, late] - count[:, middle], count[:, middle] - count[:, early]
    means = [
        (total[:, late] - total[:, middle]) / counts[0].clamp(min=1),
        (total[:, middle] - total[:, early]) / counts[1].clamp(min=1),
    ]
    enough = (counts[0] >= season / 2) & (counts[1] >= season / 2)
    return torch.where(enough, means[0] - means[1], torch.zeros_like(means[0]))
