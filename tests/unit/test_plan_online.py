"""The plan of a run that encodes whatever it draws: no disk, more work a draw, the encoders beside the network."""

from __future__ import annotations

import pytest

from finepref.diffusion.path import scaled_linear
from finepref.plan.data_sizes import DataSizes
from finepref.plan.needs import Counts, cache_of, memory_of, work_of
from finepref.train.config import RunConfig, parse_config
from finepref.train.method import make_method

ROUND = {
    "parameters": 10,
    "trained": 10,
    "castable": 0,
    "linear": 0,
    "factored": 1,
    "condition": 7,
    "vae_parameters": 3,
}
FLOP = {"forward_flop": 100.0, "training_flop": 300.0, "vae_flop": 20.0, "text_flop": 1.0}
BYTES = {"training_bytes": 0.0, "forward_bytes": 0.0, "decoder_bytes": 0.0}
COUNTS = Counts(latent=(4, 8, 8), text_parameters=5, decoder_parameters=1, **ROUND, **FLOP, **BYTES)


def config(*, online: bool, objective: str) -> RunConfig:
    return parse_config({"model": {"base": "x"}, "cache": {"online": online}, "objective": {"name": objective}})


@pytest.mark.parametrize(("objective", "more"), [("dpo", 2 * 20 + 1), ("sft", 20 + 1)])
def test_online_encoding_is_work_and_memory_instead_of_disk(objective: str, more: float) -> None:
    """A pair has two images and a prompt, SFT's winner one; 3 + 5 parameters of 4 bytes."""
    kept, online = (config(online=online, objective=objective) for online in (False, True))
    method, rows = make_method(kept), {"images": 10, "prompts": 4}
    before, after = (work_of(run, method, COUNTS, scaled_linear(), **rows) for run in (kept, online))
    assert after.draw_flop - before.draw_flop == more
    assert after.run_flop == after.draw_flop * after.draws
    assert (before.cache_flop, after.cache_flop) == (10 * 20 + 4 * 1, 0)
    held = [memory_of(run, method, COUNTS) for run in (kept, online)]
    assert sum(held[1].values()) - sum(held[0].values()) == 4 * (3 + 5)
    disk = [cache_of(run, COUNTS, DataSizes(10, 4, 5, "data")).total_bytes for run in (kept, online)]
    assert disk == [10 * 2 * 2 * 4 * 8 * 8 + 4 * 2 * 7, 0]
