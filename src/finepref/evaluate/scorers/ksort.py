"""K-Sort Eval: place one new model on a human leaderboard with few comparisons by a judge.

Every round takes the instance (prompt and four images of rated models, ranked by people) whose models are nearest to
the new model's rating, asks the judge to rank those four and the new model's image, and moves the rating by as much
as the judge agrees with the people about the four.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image
from scipy.stats import rankdata

from finepref.arena.freeforall import rank_game
from finepref.arena.online import get_preset
from finepref.arena.ratings import MU0, SIGMA0
from finepref.core.errors import InputError
from finepref.core.images import open_rgb_file
from finepref.core.progress import progress
from finepref.core.rng import numpy_generator
from finepref.evaluate.scorers.judge import Endpoint, Unparsable, picture
from finepref.evaluate.scorers.ksort_data import Benchmark, Instance, Rating
from finepref.formats.ksortresult import write_ksort

MENTION = re.compile(r"image\s*#?\s*(\d+)", re.IGNORECASE)
QUESTION = """Five images, named Image 1 to Image 5, were made for this description:

{prompt}

Rank them from best to worst. Half of the judgement is how good an image looks: photorealism 30%, light and shadow 10%,
freedom from artefacts 10%. The other half is how well it fits the description: the things it names 30%, style 20%.
Answer with one line and nothing else: the five names, best first, separated by commas, for example
"Image 2, Image 5, Image 1, Image 4, Image 3"."""


@dataclass(frozen=True, slots=True)
class KSortSettings:
    """alpha: weight of the instances' overlap in the choice. sharpness: k of sigmoid(k rho). The run ends when sigma
    falls below stop_sigma, or after `limit` rounds."""

    alpha: float = 0.5
    sharpness: float = 5.0
    stop_sigma: float = 0.75
    limit: int = 150
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Update:
    """One corrected update: rating, the engine's own proposal, agreement rho and the share lam of the step taken."""

    rating: Rating
    proposal: Rating
    rho: float
    lam: float
    gain: float


def agreement(human: Sequence[int], judged: Sequence[int]) -> float:
    """Spearman's rho of two rankings; 0 where one of them does not rank (all places equal)."""
    a, b = rankdata(human), rankdata(judged)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0 else 0.0


def update(
    me: Rating,
    rivals: Sequence[Rating],
    *,
    human_rank: Sequence[int],
    judged_rank: Sequence[int],
    sharpness: float = 5.0,
) -> Update:
    """The online engine's step of one game without ties, taken as far as the judge agrees with people.

    rho = Spearman(human rank of the rivals, judged rank of the rivals), lam = sigmoid(sharpness rho),
    mu' = lam mu_new + (1 - lam) mu, sigma'^2 = g sigma_new^2 + (1 - g) sigma^2, g = lam^2 / (lam^2 + (1 - lam)^2).

    Args:
        me: rating before.
        rivals: ratings of the leaderboard's models, which do not change.
        human_rank: places of the rivals by people.
        judged_rank: places of the rivals and of the new model (last) by the judge, 0 is best.
        sharpness: k of the sigmoid.

    References:
        K-Sort Eval, posterior correction; zkkli/K-Sort-Eval ksort_eval_image.py.

    Deviations:
        An undefined rho (all places equal) counts as 0 instead of nan. The game is taken to convergence with the exact
        normal distribution function (the package stops at 1e-4 and its function has errors of 1e-7: below 1e-6 here).
    """
    preset = get_preset("ksort")
    mu, sigma = zip(*rivals, me, strict=True)
    var = [s * s + preset.tau**2 for s in sigma]
    means, variances = rank_game([*mu], var, [*judged_rank], draw_margin=preset.draw_margin)
    proposal = (means[-1], math.sqrt(variances[-1]))
    rho = agreement(human_rank, judged_rank[:-1])
    lam = 1 / (1 + math.exp(-sharpness * rho))
    gain = lam**2 / (lam**2 + (1 - lam) ** 2)
    mean = lam * proposal[0] + (1 - lam) * me[0]
    spread = math.sqrt(gain * proposal[1] ** 2 + (1 - gain) * me[1] ** 2)
    return Update((mean, spread), proposal, rho, lam, gain)


def choose(benchmark: Benchmark, mu: float, used: Sequence[int], *, alpha: float) -> int:
    """The unused instance that minimises |capability - mu| + alpha overlap (the first of equals)."""
    cost = np.abs(benchmark.capability - mu) + alpha * benchmark.overlap
    cost[list(used)] = np.inf
    return int(np.argmin(cost))


def parse_ranking(reply: str, count: int) -> list[int]:
    """Places (0 is best) of images 1..count from a reply that names each of them once, best first."""
    order = [int(number) for number in MENTION.findall(reply)]
    if sorted(order) != list(range(1, count + 1)):
        raise Unparsable(f"it must name Image 1 to Image {count} once each, it names {order}")
    return [order.index(number) for number in range(1, count + 1)]


def judge_instance(endpoint: Endpoint, instance: Instance, image: Image, *, seed: int) -> tuple[list[int] | None, str]:
    """The judge's places of the four rivals and of `image` (last), or None and the reason.

    The images are shown in an order drawn from (seed, instance), each under its own name.
    """
    shown: list[Image] = [open_rgb_file(path) for path in instance.images]
    shown.append(image)
    order = numpy_generator(seed, "ksort", instance.name).permutation(len(shown)).tolist()
    pictures = [picture(shown[index], f"Image {place}:") for place, index in enumerate(order, start=1)]
    text = QUESTION.replace("{prompt}", instance.prompt)
    judged, reason = endpoint.ask(text, pictures, lambda reply: parse_ranking(reply, len(order)))
    return None if judged is None else [judged[order.index(image)] for image in range(len(order))], reason


def run(
    benchmark: Benchmark,
    image_of: Callable[[Instance], Image],
    endpoint: Endpoint,
    *,
    out: Path,
    settings: KSortSettings,
) -> dict[str, Any]:
    """Rate one model and write `out/ksort.json`; a killed run continues from the judge's transcripts.

    Args:
        benchmark: the human data.
        image_of: instance -> the new model's image for its prompt.
        endpoint: the judge.
        out: folder of the result.
        settings: choice, correction and stop.

    Returns:
        What was written: mu, sigma, score = mu - 3 mean sigma of the leaderboard, whether sigma stopped it, rounds.

    Raises:
        InputError: the endpoint does not answer, or an instance names a model that is not on the leaderboard.
    """
    me: Rating = (MU0, SIGMA0)
    used: list[int] = []
    rounds: list[dict[str, Any]] = []
    for _ in progress(range(min(settings.limit, len(benchmark.instances))), "K-Sort rounds", unit="round"):
        index = choose(benchmark, me[0], used, alpha=settings.alpha)
        used.append(index)
        instance = benchmark.instances[index]
        rivals = [_rating(benchmark, instance, model) for model in instance.models]
        places, reason = judge_instance(endpoint, instance, image_of(instance), seed=settings.seed)
        record: dict[str, Any] = {"instance": instance.name, "judged_rank": places, "reason": reason}
        if places is not None:
            step = update(me, rivals, human_rank=instance.human_rank, judged_rank=places, sharpness=settings.sharpness)
            me, record = step.rating, {**record, **asdict(step), "human_rank": instance.human_rank}
        rounds.append(record)
        if me[1] < settings.stop_sigma:
            break
    result = {
        "mu": me[0],
        "sigma": me[1],
        "score": me[0] - 3 * benchmark.mean_sigma,
        "mean_sigma": benchmark.mean_sigma,
        "stopped_by_sigma": me[1] < settings.stop_sigma,
        "comparisons": sum(r["judged_rank"] is not None for r in rounds),
        "unanswered": sum(r["judged_rank"] is None for r in rounds),
        "judge": endpoint.settings.model,
        "settings": asdict(settings),
        "rounds": rounds,
    }
    write_ksort(out, result)
    return result


def _rating(benchmark: Benchmark, instance: Instance, model: str) -> Rating:
    if model not in benchmark.leaderboard:
        raise InputError(f"{model!r} is not on the leaderboard", where=instance.name, remedy="check the data's version")
    return benchmark.leaderboard[model]
