"""The published step that the benchmark measures against: equal numbers, and exactly its own work."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import architectures
import published_step
import step
import throughput
import tiny_pipeline

import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """The comparison at a quarter of its size: 2 pairs a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_pipeline, "PAIRS", 6)
        patch.setattr(tiny_pipeline, "STEP", 2)
        yield tmp_path_factory.mktemp("benchmark")


def test_losses_and_gradient_norms_are_equal(folder: Path) -> None:
    """Same latents, noise, levels and captions, at the start and away from it."""
    found = step.equal_first(folder)
    assert set(found) == {"start loss", "start norm", "moved loss", "moved norm"}
    assert max(found.values()) < step.TOLERANCE


def test_each_step_does_its_own_work_and_no_more(folder: Path) -> None:
    """Counted operations: online VAE, text, policy and reference; without encoders; without reference."""
    config = tiny_pipeline.make_config(folder, max_steps=2)
    ours, published = tiny_pipeline.our_run(config, folder), tiny_pipeline.published_run(config)
    pairs, randomness = tiny_pipeline.SameDraws(ours, folder / "data").of(0)
    steps = {"published": lambda number: published.optimiser_step(pairs, randomness), "ours": ours.step}
    work = step.count_operations(steps, folder)
    assert work["counted"]["published"] == pytest.approx(work["expected"]["published"], rel=1e-12)
    assert work["counted"]["ours"] == pytest.approx(work["expected"]["ours"], rel=1e-12)
    assert work["parts"]["reference"] == pytest.approx(1.23, abs=0.005)
    assert work["parts"]["vae"] == pytest.approx(1.30, abs=0.005)
    assert sum(p.numel() for p in published.policy.parameters()) == 22_938_756


class Line(torch.nn.Module):
    """A network of one weight: w * x."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x: torch.Tensor, t: torch.Tensor, states: torch.Tensor, return_dict: bool) -> tuple:
        return (self.weight * x,)


class Encoder:
    """Stands for a VAE: latents are the first pixel's values, spread 0.5."""

    config = argparse.Namespace(scaling_factor=2.0)

    def encode(self, pixels: torch.Tensor) -> Any:
        mean = pixels[:, :1, :2, :2]
        return argparse.Namespace(latent_dist=argparse.Namespace(mean=mean, std=torch.full_like(mean, 0.5)))


def test_the_published_step_by_hand() -> None:
    """One pair through every formula: -logsigmoid(beta/2 ((Lref_w - L_w) - (Lref_l - L_l)))."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 4, 4), generator=draw, dtype=torch.uint8)
    posterior, noise = torch.randn(2, 1, 2, 2, generator=draw), torch.randn(1, 1, 2, 2, generator=draw)
    policy = Line(0.7)
    loop = published_step.Loop(
        vae=Encoder(),
        text_encoder=lambda ids: (torch.zeros(1, 77, 4),),
        tokenise=lambda caption: torch.zeros(1, 77),
        policy=policy,
        reference=Line(0.4),
        alpha_bar=torch.tensor([0.9, 0.5]),
        optimizer=torch.optim.SGD(policy.parameters(), lr=0.1),
        beta=3.0,
        device=torch.device("cpu"),
    )
    pair = published_step.Pair(pixels[0], pixels[1], "a dog")
    loss, norm = loop.optimiser_step([pair], [published_step.Randomness(posterior, noise, torch.tensor([1]))])
    latents = 2.0 * (pixels.double()[:, :1, :2, :2] / 127.5 - 1 + 0.5 * posterior)
    noisy = 0.5**0.5 * latents + 0.5**0.5 * noise

    def logit(weight: torch.Tensor) -> torch.Tensor:
        error = ((weight * noisy - noise) ** 2).mean((1, 2, 3))
        known = ((0.4 * noisy - noise) ** 2).mean((1, 2, 3))
        return 1.5 * ((known[0] - error[0]) - (known[1] - error[1]))

    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    expected = -F.logsigmoid(logit(weight))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert weight.grad is not None
    assert norm == pytest.approx(abs(weight.grad.item()), rel=1e-5)
    step_size = 0.1 * min(1.0, 1 / norm)
    assert policy.weight.item() == pytest.approx(0.7 - step_size * weight.grad.item(), rel=1e-5)


def test_a_wrong_comparison_is_noticed() -> None:
    """Unequal losses, or a step that does other work than it should, fail the measurement."""
    right = {
        "relative_differences": {"start loss": 1e-7},
        "gflop_per_pair": {"expected": {"published": 12.5}, "counted": {"published": 12.5}},
    }
    assert step.check(right) == []
    assert step.check({**right, "relative_differences": {"start loss": 2e-4}}) == ["start loss differs by 2.0e-04"]
    more = {"expected": {"published": 12.5}, "counted": {"published": 12.6}}
    assert step.check({**right, "gflop_per_pair": more}) == ["published did 12.600000 GFLOP a pair, not 12.500000"]


def test_the_full_size_measurement_runs(tmp_path: Path) -> None:
    """The path that a GPU takes, on the CPU: rate, share of the peak and work agree with each other."""
    parser = argparse.ArgumentParser()
    throughput.add_options(parser)
    options = parser.parse_args(["--micro-batch", "1", "--pairs-per-step", "1", "--steps", "1", "--precision", "no"])
    options.device = "cpu"
    base = architectures.write_configs(tmp_path, "tiny")
    found = throughput.measure(base, "tiny", options, peak=0.05)
    assert found["pairs_per_second"] == pytest.approx(1 / found["step_seconds"]["median"])
    assert found["share_of_peak"] == pytest.approx(found["pairs_per_second"] * found["tflop_per_pair"] / 0.05)
    assert found["tflop_per_pair"] * 1e3 == pytest.approx(9.880, abs=0.005)
    assert found["peak_memory_gb"] is None


@pytest.mark.parametrize("arch", ["sd15", "sdxl", "tiny"])
def test_every_variant_of_the_plan_is_a_valid_run(arch: str, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    throughput.add_options(parser)
    given = vars(parser.parse_args([]))
    for variant in throughput.PLAN[arch]:
        assert set(variant) <= set(given)
        config = throughput.config_of(tmp_path, arch, argparse.Namespace(**{**given, **variant}))
        throughput.make_method(config)


@pytest.mark.parametrize("arch", ["sd15", "sdxl"])
def test_every_variant_of_a_gpu_measurement_runs(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small pipeline of the family, a pair at a time; where a variant compiles, both networks are asked to."""
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))
    monkeypatch.setitem(throughput.RESOLUTION, arch, 64)
    parser = argparse.ArgumentParser()
    throughput.add_options(parser)
    given = vars(parser.parse_args(["--pairs-per-step", "1", "--steps", "1"]))
    base = getattr(tiny, arch)(tmp_path)
    variants = {
        repr(sorted((found := {**variant, "micro_batch": 1}).items())): found for variant in throughput.PLAN[arch]
    }
    for variant in variants.values():
        compiled.clear()
        options = argparse.Namespace(**{**given, **variant, "device": "cpu"})
        assert throughput.measure(base, arch, options, peak=1.0)["pairs_per_second"] > 0
        assert len({id(network) for network in compiled}) == ((1 if options.lora else 2) if options.compile else 0)


def test_a_result_says_when_where_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Date, command, versions, device; the file holds what was measured before the run broke off."""
    parser = argparse.ArgumentParser()
    throughput.add_options(parser)
    out = tmp_path / "result.json"
    options = parser.parse_args(["--plan", "--peak", "1"])
    options.device, options.arch, options.json, options.out = "cpu", "tiny", False, out
    measured = iter([{"pairs_per_second": 2.0, "share_of_peak": 0.5, "peak_memory_gb": None}])
    monkeypatch.setattr(throughput, "measure", lambda *_: next(measured))
    monkeypatch.setattr(sys, "argv", ["benchmarks/step.py", "--arch", "tiny"])
    with pytest.raises(StopIteration):
        throughput.throughput(options)
    record = json.loads(out.read_text())
    assert record["command"] == "step.py --arch tiny"
    assert record["created"][:2] == "20"
    assert record["versions"]["torch"]
    assert record["device"] == throughput.device_name(torch.device("cpu")) != ""
    assert [result["pairs_per_second"] for result in record["results"]] == [2.0]
