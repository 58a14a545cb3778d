"""Counters of an optimiser step: what it asks of networks, of the host and of the other processes. No timing.

Host syncs are looked for on a pretended accelerator, torch's meta device: a tensor there has no values, so that reading
one (`item`, `tolist`, `bool`, `nonzero`) raises; copies to it must be asynchronous.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finepref.core import rng
from finepref.diffusion.programme import programme
from finepref.diffusion.trajectory_options import InversionOptions
from finepref.train import loop
from finepref.train import state as state_of
from finepref.train.config import load_config
from finepref.train.identity import prepare
from finepref.train.log import Tally
from finepref.train.opened import about_base, open_latents
from finepref.train.processes import World
from finepref.train.run import make_run as load_run

DEVICE = torch.device("meta")
METHODS = (
    "objective={name: dpo, beta: 500} | guard={name: sdpo}",
    "objective={name: dspo}",
    "objective={name: mapo} | trajectory={name: ddim_inversion}",
    "objective={name: dmpo, loss_space: x0} | trajectory={name: renoise, cfg: 3} | train.stratified_t=true",
)


@pytest.fixture
def make_run(world: Path, tmp_path: Path):
    """Overrides -> a run that is ready for its first optimiser step, and its state."""

    def make(*overrides: str) -> tuple[state_of.Run, state_of.State]:
        config = load_config(world / "run.yaml", overrides)
        place = World(rank=0, size=1, device=torch.device("cpu"))
        prepared = prepare(config, cache=open_latents(config, tmp_path / "run", world=place), base=about_base(config))
        run = load_run(prepared, tmp_path / "run", world=place)
        run.out.mkdir(exist_ok=True)
        return run, loop.begin(run, resume=False)

    return make


@contextmanager
def counted(run: state_of.Run) -> Iterator[Counter[str]]:
    """Forward calls of policy, reference, VAE and text encoder while it is open."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    calls: Counter[str] = Counter()
    patch = pytest.MonkeyPatch()

    def watch(cls: type, method: str, name: Any) -> None:
        original = getattr(cls, method)

        def watched(self: Any, *arguments: Any, **keywords: Any) -> Any:
            key = name(self)
            calls[key] += 1
            if key in ("policy", "reference"):
                calls[f"{key} images"] += arguments[0].shape[0]
            return original(self, *arguments, **keywords)

        patch.setattr(cls, method, watched)

    policy = run.adapter.policy_module()
    watch(UNet2DConditionModel, "forward", lambda self: "policy" if self is policy else "reference")
    watch(AutoencoderKL, "encode", lambda self: "vae")
    watch(CLIPTextModel, "forward", lambda self: "text")
    with patch.context():
        yield calls
    patch.undo()


def test_a_step_calls_the_networks_as_planned_and_no_encoder(make_run) -> None:
    """8 pairs in micro-batches of 4: two policy and two reference forwards of 8 images; no VAE, no text encoder."""
    run, state = make_run()
    with counted(run) as calls:
        loop.optimiser_step(run, state, 0)
    assert dict(calls) == {"policy": 2, "reference": 2, "policy images": 16, "reference images": 16}
    assert state.calls == {"policy": 16, "reference": 16, "inversion": 0, "anchor": 0}


def test_a_step_without_reference_calls_none(make_run) -> None:
    run, state = make_run("objective={name: mapo}")
    with counted(run) as calls:
        loop.optimiser_step(run, state, 0)
    assert dict(calls) == {"policy": 2, "policy images": 16}


@pytest.mark.parametrize("name", ["ddim_inversion", "renoise"])
def test_an_inversion_costs_the_longest_pair(make_run, name: str) -> None:
    """All pairs of an optimiser step are inverted together: as many network calls as the longest pair, not the sum."""
    run, state = make_run(f"trajectory={{name: {name}}}", "train.micro_batch=2")
    options = run.method.inversion
    assert isinstance(options, InversionOptions)
    order = run.source.order(step=0, per_step=8)
    ids = [run.source.table.ids[draw.index] for draw in order]
    u = rng.uniforms(0, "t", ids, [draw.visit for draw in order])
    t = run.adapter.path.draw_t(torch.from_numpy(u), lowest=run.method.lowest_t)
    plan = programme(t, path=run.adapter.path, options=options)
    longest, images = int(plan.calls.max()), 2 * int(plan.calls.sum())
    assert plan.calls.min() < plan.calls.max(), "the draw has pairs of one length only"
    with counted(run) as calls:
        loop.optimiser_step(run, state, 0)
    assert calls["policy"] == longest + 4
    assert state.calls == {"policy": 16, "reference": 16, "inversion": images, "anchor": 0}


def collectives(patch: pytest.MonkeyPatch) -> Counter[str]:
    """Count collectives; the other process is pretended."""
    import torch.distributed as dist

    calls: Counter[str] = Counter()
    for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast", "barrier", "reduce_scatter_tensor"):
        patch.setattr(dist, name, lambda *a, _name=name, **k: calls.update([_name]))
    return calls


def reads(patch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what would wait for the device."""
    calls: Counter[str] = Counter()
    for name in ("item", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def watched(self: torch.Tensor, *arguments: Any, _name: str = name, _original: Any = original, **keys: Any):
            calls[_name] += 1
            return _original(self, *arguments, **keys)

        patch.setattr(torch.Tensor, name, watched)
    return calls


def test_reads_and_collectives_do_not_grow_with_the_micro_steps(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 micro-step or 8 of them: the same few reads, one reduction of the statistics, one bucket of gradients."""
    found = []
    for size in (8, 1):
        run, state = make_run(f"train.micro_batch={size}")
        run = dataclasses.replace(run, world=World(rank=0, size=2, device=torch.device("cpu")))
        state = loop.begin(dataclasses.replace(run, world=World(rank=0, size=1, device=DEVICE)), resume=False)
        with pytest.MonkeyPatch.context() as patch:
            network, host = collectives(patch), reads(patch)
            loop.optimiser_step(run, state, 0)
        found.append((dict(network), dict(host)))
    assert found[0] == found[1]
    assert found[0][0] == {"all_reduce": 2}


class Copies(TorchDispatchMode):
    """Collects copies between host and device that the host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.copied = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and "device" in kwargs:
            source, target = args[0].device.type, torch.device(kwargs["device"]).type
            if source != target:
                self.copied += 1
                if target == "cpu" or not kwargs.get("non_blocking"):
                    self.waiting.append(f"{source} -> {target} {tuple(args[0].shape)}")
        return func(*args, **kwargs)


def on_the_pretended_device(run: state_of.Run) -> state_of.Run:
    """The run with its networks on the pretended device."""
    adapter: Any = run.adapter
    for module in filter(None, (adapter.policy_module(), adapter.reference_module())):
        module.to(DEVICE)
    adapter.device = DEVICE
    return dataclasses.replace(run, world=World(rank=0, size=1, device=DEVICE))


@pytest.mark.parametrize("method", METHODS)
def test_a_micro_step_on_the_device_never_waits(make_run, method: str) -> None:
    """From the loaded batch through backward to the statistics: no read of a device tensor, no copy that blocks."""
    run, state = make_run(*method.split(" | "))
    order = run.source.order(step=0, per_step=8)
    losses = 0
    run = on_the_pretended_device(run)
    tally = Tally(buckets=4, highest=1000.0, device=DEVICE)
    with Copies() as copies:
        for out, t in loop._outputs(run, state.calls, step=0, order=order, positions=range(8)):
            assert out.loss.device == DEVICE
            (out.loss.sum() / 8).backward()
            tally.add(out, t)
            losses += out.loss.shape[0]
    assert losses == 8
    assert copies.copied > 0
    assert copies.waiting == []


def test_the_pretended_device_notices_a_read() -> None:
    """The instrument: reading a tensor of the pretended device raises, and a blocking copy is collected."""
    there = torch.zeros(3, device=DEVICE)
    for read in (lambda: there.sum().item(), lambda: bool(there.sum() > 0), there.tolist, there.cpu, there.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
    with Copies() as copies:
        torch.zeros(3).to(DEVICE)
        torch.zeros(3).to(DEVICE, non_blocking=True)
    assert (copies.copied, len(copies.waiting)) == (2, 1)


def test_errors_of_the_reading_thread_reach_the_loop(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that cannot be read raises its own error in the loop, and leaves no thread behind."""
    import threading

    from finepref.core.errors import InputError

    run, state = make_run()
    calls = Counter[str]()
    original = type(run.source).batch

    def broken(self: Any, drawn: Any, **keywords: Any) -> Any:
        calls["batch"] += 1
        if calls["batch"] == 2:
            raise InputError("no image", where="shard")
        return original(self, drawn, **keywords)

    monkeypatch.setattr(type(run.source), "batch", broken)
    before = threading.active_count()
    with pytest.raises(InputError, match="no image"):
        loop.optimiser_step(run, state, 0)
    assert threading.active_count() == before


def test_an_error_in_training_stops_the_reading_thread(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    run, state = make_run("train.micro_batch=1")
    monkeypatch.setattr(loop, "pair_loss", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("out of memory")))
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        loop.optimiser_step(run, state, 0)
    assert threading.active_count() == before


def test_levels_that_share_a_trajectory_pay_for_it_once(make_run) -> None:
    """8 pairs a step with 4 levels a trajectory: 2 draws, inverted once, trained on 8 rows; strata are all used."""
    run, state = make_run(
        "trajectory={name: ddim_inversion, share: 4}", "train.micro_batch=3", "train.stratified_t=true"
    )
    seen: list[torch.Tensor] = []
    draw_levels = state_of.draw_levels

    def watched(*arguments: Any, **keywords: Any) -> torch.Tensor:
        seen.append(draw_levels(*arguments, **keywords))
        return seen[-1]

    with counted(run) as calls, pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_of, "draw_levels", watched)
        loop.optimiser_step(run, state, 0)
    (t,) = seen
    assert t.shape == (2, 4)
    assert sorted((t.flatten() - 1).mul(8).div(999, rounding_mode="floor").tolist()) == list(range(8))
    options = run.method.inversion
    assert options is not None
    plan = programme(t, path=run.adapter.path, options=options)
    assert calls["policy"] == int(plan.calls.max()) + 3
    assert state.calls == {"policy": 16, "reference": 16, "inversion": 2 * int(plan.calls.sum()), "anchor": 0}
