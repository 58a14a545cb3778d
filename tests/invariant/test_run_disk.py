"""What `finepref plan` says of a run's folder is what its files take, but for their headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from finepref.plan.plan import plan_run
from finepref.train.config import load_config
from finepref.train.run import train_run

LAB = (
    "data.paths=[]",
    "train.max_steps=3",
    "train.checkpoint_every=1",
    "train.pairs_per_step=2",
    "train.micro_batch=2",
)
WAYS = {
    "adamw": (),
    "adafactor": ("train.optimizer=adafactor",),
    "at the end": ("train.checkpoint_every=0",),
    "average": ("train.ema_decay=0.9",),
    "lora": ("lora={rank: 64}", "train.ema_decay=0.9", "train.checkpoints_keep=1"),
    "moving": ("train.reference.kind=ema", "train.reference.decay=0.9"),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import own_pairs
    from finepref.data.convert import convert
    from finepref.train.opened import make_cache
    from finepref.train.processes import launched

    folder = tmp_path_factory.mktemp("disk")
    own_pairs.make_folder(folder / "data", pairs=4)
    convert([folder / "data"], folder / "pairs.parquet")
    make_cache(load_config("lab/dpo", [f"data.paths=[{folder / 'pairs.parquet'}]"]), folder / "cache", world=launched())
    return folder / "cache"


@pytest.mark.parametrize("way", WAYS)
def test_disk_of_a_run(way: str, cache: Path, tmp_path: Path) -> None:
    """Within 2 % of the weights and states in it, on the lab's model, whose headers are 0.3 to 0.6 % of them."""
    config = load_config("lab/dpo", [*LAB, f"cache.folder={cache}", *WAYS[way]])
    folder = plan_run(config, gpus=(), processes=1).folder
    out = train_run(config, tmp_path / "run")
    taken = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    assert len([*(out / "checkpoints").iterdir()]) == folder.kept
    assert abs(folder.total_bytes - taken) <= 0.02 * taken
