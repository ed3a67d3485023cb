"""A policy with memory, trained while its episodes end inside the windows it learns from.

    python examples/recurrent_policy.py
    python examples/recurrent_policy.py --tiny

A corridor: the first step shows a cue, left or right; some steps later comes a junction, and the reward is 1
for turning the way of the cue, else 0. Many corridors run side by side, each of its own length, so an episode
ends anywhere inside a window of T steps, and the next one begins there. `reset` starts it from zero, in the
one call that also computes the gradient; stepping through time, which is how the actions are chosen, gives
the same numbers, and each window is checked for it.
"""

import argparse

import torch
from torch import nn

import longshort as ls

CHANNELS = 4
"left cue, right cue, junction, always 1"


class Corridors:
    """N corridors side by side. Every episode has its own length, and the next one follows at once."""

    def __init__(self, N: int, longest: int, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        self.N, self.longest = N, longest
        self.cue, self.left = torch.zeros(N, dtype=torch.int64), torch.zeros(N, dtype=torch.int64)
        self.first = torch.ones(N, dtype=torch.bool)
        self._begin(self.first)

    def _begin(self, which: torch.Tensor) -> None:
        cues = torch.randint(0, 2, (self.N,), generator=self.rng)
        lengths = torch.randint(2, self.longest + 1, (self.N,), generator=self.rng)
        self.cue = torch.where(which, cues, self.cue)
        self.left = torch.where(which, lengths, self.left)
        self.first = which

    def observe(self) -> torch.Tensor:
        """(N, CHANNELS): the cue on the first step of an episode only."""
        shown = nn.functional.one_hot(self.cue, 2) * self.first[:, None]
        junction = self.left == 1
        return torch.cat((shown, junction[:, None], torch.ones(self.N, 1)), dim=1).float()

    def act(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a step: reward (N,) and done (N,)."""
        done = self.left == 1
        reward = (done & (action == self.cue)).float()
        self.left = self.left - 1
        self._begin(done)
        return reward, done


class Policy(nn.Module):
    """Action scores (..., 2) and a value (..., 1) from the state of an LSTM."""

    def __init__(self, H: int) -> None:
        super().__init__()
        self.lstm = ls.LSTM(CHANNELS, H, batch_first=True, init="longshort")
        self.head = nn.Linear(H, 3)


def collect(policy: Policy, world: Corridors, state: ls.State, ended: torch.Tensor, T: int) -> dict:
    """Act for T steps, one at a time. An episode that has ended starts from the zero state."""
    seen = {name: [] for name in ("x", "h", "action", "reward", "done")}
    start, before = state, ended
    with torch.no_grad():
        for _ in range(T):
            going_on = (~ended).float()[:, None]
            state = ls.State(state.h * going_on, state.c * going_on)
            x = world.observe()
            h, state = policy.lstm.step(x, state)
            action = torch.distributions.Categorical(logits=policy.head(h)[:, :2]).sample()
            reward, ended = world.act(action)
            for name, value in (("x", x), ("h", h), ("action", action), ("reward", reward), ("done", ended)):
                seen[name].append(value)
    window = {name: torch.stack(values, dim=1) for name, values in seen.items()}
    return window | {"start": start, "reset": ls.dones_to_resets(window["done"], before), "state": state}


def learn(policy: Policy, optimiser: torch.optim.Optimizer, window: dict) -> float:
    """One step of advantage actor-critic on a window; returns the share of episodes that ended well."""
    h, _ = policy.lstm(window["x"], window["start"], reset=window["reset"])
    torch.testing.assert_close(h, window["h"], rtol=1e-4, atol=1e-5)  # one call equals the loop over time
    out = policy.head(h)
    value, following = out[..., 2], out[:, -1, 2].detach()
    returns = []
    for t in reversed(range(h.shape[1])):
        following = window["reward"][:, t] + torch.where(window["done"][:, t], 0, following)
        returns.append(following)
    target = torch.stack(returns[::-1], dim=1)
    chosen = torch.distributions.Categorical(logits=out[..., :2])
    advantage = (target - value).detach()
    loss = -(chosen.log_prob(window["action"]) * advantage).mean()
    loss = loss + 0.5 * (target - value).square().mean() - 0.01 * chosen.entropy().mean()
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimiser.step()
    return (window["reward"].sum() / window["done"].sum().clamp(min=1)).item()


def main() -> float:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that everything runs")
    tiny = parser.parse_args().tiny
    torch.manual_seed(0)
    N, T, updates = (8, 8, 6) if tiny else (64, 16, 200)
    policy, world = Policy(24), Corridors(N, longest=12, seed=0)
    optimiser = torch.optim.Adam(policy.parameters(), lr=5e-3)
    state, ended, lately = policy.lstm.initial_state(N).detach(), torch.zeros(N, dtype=torch.bool), []
    for update in range(1, updates + 1):
        window = collect(policy, world, state, ended, T)
        state, ended = window["state"], window["done"][:, -1]
        lately.append(learn(policy, optimiser, window))
        if update % max(1, updates // 8) == 0:
            print(f"update {update:4}  right turns {sum(lately[-20:]) / len(lately[-20:]):6.1%}")
    return sum(lately[-20:]) / len(lately[-20:])


if __name__ == "__main__":
    main()
