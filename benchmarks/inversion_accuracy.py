"""How accurately do the trajectories invert? Analytic denoisers, where the answer is known exactly.

    python benchmarks/inversion_accuracy.py            prints the tables of benchmarks/results/*-inversion-accuracy.md

Data are independent pixels of a known density, so the best possible denoiser is a formula. The deterministic flow that
DDIM inversion discretises keeps every pixel's quantile, so the exact x_t follows from two distribution functions and no
integration: x_t = F_t^-1(F_0(x_0)). Errors are root-mean-square over 4,096 pixels, relative to that of x_t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from finepref.core import rng
from finepref.diffusion.path import FLOW, Path, scaled_linear
from finepref.diffusion.trajectories import TRAJECTORIES
from finepref.diffusion.trajectory_options import InversionOptions, RenoiseOptions

SHAPE = (1, 1, 64, 64)


@dataclass(frozen=True)
class Density:
    """A mixture of normals for every pixel."""

    name: str
    weight: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    def at(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(log weight, mean, variance) [..., M] of the mixture of a x0 + b eps."""
        weight, mean, sd = (torch.tensor(values, dtype=torch.float64) for values in (self.weight, self.mean, self.sd))
        a, b = a[..., None], b[..., None]
        return weight.log(), a * mean, a**2 * sd**2 + b**2

    def epsilon(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """E[eps | x_t = x] = -b d/dx log p_t(x)."""
        log_weight, mean, variance = self.at(a, b)
        z = x[..., None] - mean
        share = torch.softmax(log_weight - 0.5 * variance.log() - 0.5 * z**2 / variance, dim=-1)
        return b * (share * z / variance).sum(-1)

    def cdf(self, x: np.ndarray, a: float, b: float) -> np.ndarray:
        """F_t(x)."""
        _, mean, variance = (v.numpy() for v in self.at(torch.tensor(a), torch.tensor(b)))
        return (np.array(self.weight) * ndtr((x[..., None] - mean) / np.sqrt(variance))).sum(-1)

    def quantile(self, p: np.ndarray, a: float, b: float) -> np.ndarray:
        """F_t^-1(p) by bisection to the last bit."""
        low, high = np.full_like(p, -40.0), np.full_like(p, 40.0)
        for _ in range(90):
            middle = (low + high) / 2
            below = self.cdf(middle, a, b) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def sample(self, count: int) -> np.ndarray:
        """Pixels between the 0.1 % and 99.9 % quantiles of the data."""
        p = rng.numpy_generator(7, "inversion accuracy", self.name).uniform(0.001, 0.999, count)
        return self.quantile(p, 1.0, 0.0)


GAUSSIAN = Density("gaussian", (1.0,), (0.4,), (0.6,))
MIXTURE = Density("mixture", (0.35, 0.45, 0.2), (-1.4, 0.3, 1.7), (0.25, 0.3, 0.2))


def denoiser(density: Density, path: Path, calls: list[int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The best network of that density, counting its calls."""

    def denoise(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        calls.append(x.shape[0])
        a, b = (v.view(-1, 1, 1, 1).expand_as(x) for v in path.levels(t.clamp_min(0)))
        epsilon = density.epsilon(x, a, b)
        if path.parametrisation == "epsilon":
            return epsilon
        x0 = (x - b * epsilon) / a
        return epsilon - x0 if path.parametrisation == "flow" else a * epsilon - b * x0

    return denoise


def exact(density: Density, path: Path, x0: np.ndarray, t: float) -> np.ndarray:
    """x_t of the deterministic flow; on discrete paths x0 counts as a sample of level 0, as in the trajectories."""
    kind = torch.int64 if path.discrete else torch.float64
    a_0, b_0 = (float(v[0]) for v in path.levels(torch.zeros(1, dtype=kind)))
    a_t, b_t = (float(v[0]) for v in path.levels(torch.tensor([t], dtype=kind)))
    return density.quantile(density.cdf(x0, a_0, b_0), a_t, b_t)


def invert(density: Density, path: Path, t: float, options: InversionOptions) -> tuple[float, int]:
    """(relative error of x_t, network calls)."""
    kind = torch.int64 if path.discrete else torch.float64
    x0 = density.sample(math.prod(SHAPE))
    if path.discrete:  # a sample of level 0
        a_0, b_0 = (float(v[0]) for v in path.levels(torch.zeros(1, dtype=torch.int64)))
        x0 = density.quantile(density.cdf(x0, 1.0, 0.0), a_0, b_0)
    image = torch.from_numpy(x0).view(SHAPE)
    calls: list[int] = []
    row = TRAJECTORIES["renoise" if isinstance(options, RenoiseOptions) else "ddim_inversion"]
    placed = row.place(
        image,
        image,
        torch.tensor([t], dtype=kind),
        path=path,
        options=options,
        denoise=denoiser(density, path, calls),
    )
    wanted = exact(density, path, x0, t)
    error = placed.xt_w.numpy().ravel() - wanted
    return float(np.sqrt((error**2).mean() / (wanted**2).mean())), len(calls)


def steps_for(count: int, t: float, path: Path) -> int:
    """The option `steps` at which a pair at level t takes exactly `count` steps on the exact grid."""
    highest = 1.0 if path.alpha_bar is None else path.alpha_bar.shape[0] - 1
    return max(1, int(count * highest / t + 1e-9))


def plain(count: int, t: float, path: Path) -> InversionOptions:
    """DDIM inversion in `count` steps."""
    return InversionOptions(steps=steps_for(count, t, path))


def refined(count: int, t: float, path: Path, **own: object) -> RenoiseOptions:
    """ReNoise on `count` steps."""
    return RenoiseOptions.model_validate({"steps": steps_for(count, t, path), **own})


PAPER = {"renoise": "last", "label": "destination", "average": False}
OFFICIAL = {"renoise": "each", "label": "source", "average": True}
TRAPEZOID = {"renoise": "each", "label": "destination", "average": True}


def order(density: Density, path: Path, t: float, own: dict[str, object] | None = None) -> float:
    """Slope of -log error over log steps, K = 64, 128, 256, 512, by least squares."""
    counts = np.array([64, 128, 256, 512])
    make = plain if own is None else refined
    errors = [invert(density, path, t, make(int(k), t, path, **(own or {})))[0] for k in counts]
    return float(-np.polyfit(np.log(counts), np.log(errors), 1)[0])


def main() -> None:
    """Print both tables."""
    sd = scaled_linear()
    v = scaled_linear(parametrisation="v_prediction")
    print("Order in the number of steps, K = 64..512 (levels divide evenly: t = 512; flow: s = 0.9)\n")
    print("| density | path | DDIM | each, destination, average |\n|---|---|---|---|")
    for density in (GAUSSIAN, MIXTURE):
        for name, path, t in (("SD, epsilon", sd, 512), ("SD, v", v, 512), ("flow", FLOW, 0.9)):
            slopes = order(density, path, t), order(density, path, t, TRAPEZOID)
            print(f"| {density.name} | {name} | {slopes[0]:.3f} | {slopes[1]:.3f} |")
    print(
        "\nRelative error of x_t at equal network calls, and its ratio to plain DDIM with as many calls (SD, epsilon)\n"
    )
    print("| density | t | calls | DDIM | paper: last | official: each, source | each, destination, average |")
    print("|---|---|---|---|---|---|---|")
    for density in (GAUSSIAN, MIXTURE):
        for t in (100, 250, 500, 750, 950):
            for calls in (4, 6, 10, 20):
                _budget(density, sd, t, calls)
    print(
        "\nThe official grid (0.20, 5 entries): error of x at the level L that it reaches, and at the t that is used\n"
    )
    print("| density | t | L | calls | at L | at t |\n|---|---|---|---|---|---|")
    for density in (GAUSSIAN, MIXTURE):
        for t in (100, 250, 500, 750, 950):
            _official(density, sd, t)


def _budget(density: Density, path: Path, t: int, calls: int) -> None:
    base, used = invert(density, path, t, plain(calls, t, path))
    assert used == calls
    cells = []
    for count, own in ((calls - 1, PAPER), (calls // 2, OFFICIAL), (calls // 2, TRAPEZOID)):
        error, used = invert(density, path, t, refined(count, t, path, **own))
        assert used == calls
        cells.append(f"{error:.2e} ({error / base:.2f})")
    print(f"| {density.name} | {t} | {calls} | {base:.2e} | " + " | ".join(cells) + " |")


def _official(density: Density, path: Path, t: int) -> None:
    level = min(entry for entry in (1, 201, 401, 601, 801, 10**9) if entry >= t or entry == 801)
    own = RenoiseOptions(grid="official-0.20", steps=5, renoise="each", label="source", average=True)
    at_t, calls = invert(density, path, t, own)
    at_level, _ = invert(density, path, level, own)
    print(f"| {density.name} | {t} | {level} | {calls} | {at_level:.2e} | {at_t:.2e} |")


if __name__ == "__main__":
    main()
