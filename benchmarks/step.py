"""How much does a training step cost? Against the published step on a CPU, or alone at full size on a GPU.

python benchmarks/step.py [--rounds 9] [--json] [--out FILE]
    CPU-seconds per pair on the tiny pipeline (UNet 22.9 M parameters, 1.23 GFLOP an image; VAE 1.30), one thread,
    optimiser steps of 8 pairs interleaved in one process: the published step (one pair a micro-step, VAE and text
    encoder online, accumulation 8), the library's own (micro-batch 8, cached latents), the library's own with cached
    reference errors, and the network's forward and backward alone, which no loop can go below. First: equal losses and
    gradient norms, and the operations of each step, counted.
python benchmarks/step.py --device cuda --arch sd15|sdxl [--plan] [options]
    pairs per second, share of the peak rate, peak memory, with random weights of the true architecture.
python benchmarks/step.py --arch tiny --plan
    the same on a CPU, to see that the script runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

# The published loop takes its errors of about 1 in float32: 20 operations deep, each is wrong by sqrt(20) 2^-24 = 3e-7,
# the worst of many by four times that. Four of them, times beta / 2 = 50, make the logit.
TOLERANCE = 1e-4


def perturb(network: torch.nn.Module) -> None:
    """The same small change of every weight, so that policy and reference differ."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=1e-3)


def equal_first(folder: Path) -> dict[str, float]:
    """Largest relative differences of losses and gradient norms, at the start (beta 5000) and away from it (beta 100).

    beta magnifies the rounding of errors (1e-7) into the logit; away from the start it is chosen small enough.
    """
    from tiny_pipeline import SameDraws, make_config, our_run, published_run

    found = {}
    for name, beta, moved in (("start", 5000.0, False), ("moved", 100.0, True)):
        config = make_config(folder, beta=beta)
        ours, published = our_run(config, folder), published_run(config)
        if moved:
            perturb(ours.run.adapter.policy_module())
            perturb(published.policy)
        draws = SameDraws(ours, folder / "data")
        for step in range(2):
            record = ours.step(step)
            loss, norm = published.optimiser_step(*draws.of(step))
            for what, a, b in (("loss", record.means["loss"], loss), ("norm", record.grad_norm, norm)):
                key = f"{name} {what}"
                found[key] = max(found.get(key, 0.0), abs(a - b) / abs(b))
            if not moved:
                break
    return found


def count_operations(steps: dict[str, Callable[[int], Any]], folder: Path) -> dict[str, Any]:
    """GFLOP per pair of each kind of step, and of the parts that the published one must consist of, nothing more."""
    from tiny_pipeline import STEP, make_config, published_run

    from finepref.plan.skeleton import Flops

    def gflop(function: Callable[[], Any]) -> float:
        with Flops() as work:
            function()
        return work.total / 1e9

    parts_of = published_run(make_config(folder))
    image, latent = torch.zeros(1, 3, 128, 128), torch.zeros(1, 4, 16, 16)
    t, states = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 77, 64)
    parts = {
        "policy": gflop(lambda: parts_of.policy(latent, t, states)[0].sum().backward()),
        "reference": gflop(lambda: parts_of.reference(latent, t, states)),
        "vae": gflop(lambda: parts_of.vae.encode(image)),
        "text": gflop(lambda: parts_of.text_encoder(torch.zeros(1, 77, dtype=torch.int64))),
    }
    pair = 2 * (parts["policy"] + parts["reference"])
    expected = {
        "published": pair + 2 * parts["vae"] + parts["text"],
        "ours": pair,
        "ours_reference_cache": 2 * parts["policy"],
        "policy_alone": 2 * parts["policy"],
    }
    counted = {name: gflop(lambda step=step: step(0)) / STEP for name, step in steps.items()}
    return {"parts": parts, "expected": expected, "counted": counted}


def measure(steps: dict[str, Callable[[int], Any]], *, rounds: int, pairs: int) -> dict[str, list[float]]:
    """CPU-seconds per pair of every optimiser step, kinds in turn; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step(number % 8)
            spent = (time.process_time() - began) / pairs
            if number:
                seconds[name].append(spent)
    gc.enable()
    return seconds


def policy_alone(policy: torch.nn.Module, *, images: int) -> Callable[[int], None]:
    """The trained network's forward and backward on all images of an optimiser step at once: what no loop can save."""
    draw = torch.Generator().manual_seed(1)
    x, states = torch.randn(images, 4, 16, 16, generator=draw), torch.randn(images, 77, 64, generator=draw)
    t = torch.randint(0, 1000, (images,), generator=draw)

    def step(number: int) -> None:
        policy.zero_grad(set_to_none=True)
        policy(x, t, states, return_dict=False)[0].square().mean().backward()

    return step


def compare(rounds: int) -> dict[str, Any]:
    """The whole CPU comparison."""
    from throughput import device_name
    from tiny_pipeline import STEP, SameDraws, make_config, our_run, published_run

    from finepref.core.provenance import provenance
    from finepref.train.frozen import ERRORS
    from finepref.train.run import fill_run

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        differences = equal_first(folder)
        config = make_config(folder)
        cached = make_config(folder, reference_cache=str(folder / "errors"))
        fill = fill_run(cached, ERRORS)
        ours, quick, published = our_run(config, folder), our_run(cached, folder), published_run(config)
        draws = SameDraws(ours, folder / "data")
        same = [draws.of(step) for step in range(8)]
        steps: dict[str, Callable[[int], Any]] = {
            "published": lambda step: published.optimiser_step(*same[step]),
            "ours": ours.step,
            "ours_reference_cache": quick.step,
            "policy_alone": policy_alone(quick.run.adapter.policy_module(), images=2 * STEP),
        }
        work = count_operations(steps, folder)
        seconds = measure(steps, rounds=rounds, pairs=STEP)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        **provenance(),
        "device": device_name(torch.device("cpu")),
        "ratio": median["published"] / median["ours"],
        "ratio_reference_cache": median["published"] / median["ours_reference_cache"],
        "cpu_seconds_per_pair": median,
        "range": {name: (min(values), max(values)) for name, values in seconds.items()},
        "rounds": rounds,
        "gflop_per_pair": work,
        "relative_differences": differences,
        "fill_device_seconds": fill.device_seconds,
        "threads": torch.get_num_threads(),
    }


def check(result: dict[str, Any]) -> list[str]:
    """What is wrong with a comparison: unequal numbers, or work that is not what it should be."""
    wrong = [f"{k} differs by {v:.1e}" for k, v in result["relative_differences"].items() if v > TOLERANCE]
    work = result["gflop_per_pair"]
    for name, expected in work["expected"].items():
        if abs(work["counted"][name] - expected) > 1e-9 * expected:
            wrong.append(f"{name} did {work['counted'][name]:.6f} GFLOP a pair, not {expected:.6f}")
    return wrong


def report(result: dict[str, Any]) -> str:
    """The comparison as text."""
    work = result["gflop_per_pair"]
    lines = ["relative differences: " + ", ".join(f"{k} {v:.1e}" for k, v in result["relative_differences"].items())]
    lines.append(f"{'':24}{'GFLOP/pair':>12}{'CPU-s/pair':>12}{'min':>9}{'max':>9}{'ratio':>8}")
    for name, seconds in result["cpu_seconds_per_pair"].items():
        low, high = result["range"][name]
        ratio = result["cpu_seconds_per_pair"]["published"] / seconds
        counted = work["counted"][name]
        lines.append(f"{name:24}{counted:>12.4f}{seconds:>12.4f}{low:>9.4f}{high:>9.4f}{ratio:>8.2f}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="optimiser steps of each kind that count")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--out", type=Path, help="also write the result, with date, command, versions and device, as JSON"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--arch", choices=("tiny", "sd15", "sdxl"), help="measure the library alone at this size")
    from throughput import add_options, throughput

    from finepref.core.files import write_json

    add_options(parser)
    options = parser.parse_args()
    if options.device == "cuda" and options.arch is None:
        parser.error("--device cuda needs --arch")
    if options.arch is not None:
        throughput(options)
        return
    result = compare(options.rounds)
    if options.out is not None:
        write_json(options.out, result)
    print(json.dumps(result) if options.json else report(result))
    wrong = check(result)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
