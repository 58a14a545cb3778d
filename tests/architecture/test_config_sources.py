"""Every value of a shipped layer has its source beside it, that of the method's own paper or launcher."""

from __future__ import annotations

import math
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from finepref.formats.layers import SHIPPED, read_layer, shipped_configs, shipped_layers, stack
from finepref.plan.methods import commands
from finepref.train.config import load_config

CONFIGS = shipped_configs()
REAL = [name for name in CONFIGS if not name.startswith("lab/")]


@pytest.mark.parametrize("name", shipped_layers())
def test_every_value_has_its_source(name: str) -> None:
    """A comment on the line of every value; a product in it is the value; a method says where it comes from."""
    layer = read_layer(shipped_layers()[name])
    for part in layer.parts.values():
        for key, setting in part.items():
            assert len(setting.source) > 3, f"{'.'.join(key)} has no # source"
            factors = re.search(r"\d+(?: x \d+)+", setting.source)
            if factors:
                assert key == ("train", "pairs_per_step")
                assert math.prod(map(int, factors[0].split(" x "))) == setting.value, setting.source
    if name.startswith("method/"):
        assert {"source", "deviations", "golden"} <= layer.about.model_fields_set


def test_few_layers_and_nothing_stands_twice() -> None:
    """At most 60 files, and no ten lines in a row that two of them share."""
    blocks: dict[str, set[str]] = defaultdict(set)
    files = sorted(SHIPPED.rglob("*.yaml"))
    assert len(files) == len(shipped_layers()) <= 60
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        for start in range(len(lines) - 9):
            blocks["\n".join(lines[start : start + 10])].add(file.name)
    assert not [names for names in blocks.values() if len(names) > 1]


def test_a_run_keeps_where_its_values_come_from(tmp_path: Path) -> None:
    """The saved config is the config, with the layer of every value beside it, and a layer again."""
    (tmp_path / "mine.yaml").write_text("validation:\n  prompts: ['a: b # c', 'two\n\n  lines']\ntrain: {seed: 3}\n")
    config = load_config(["lab/smpo", tmp_path / "mine.yaml"], ["train.max_steps=1e2", "data.columns.prompt=words"])
    text = config.to_yaml()
    assert yaml.safe_load(text) == config.as_dict()
    (tmp_path / "config.yaml").write_text(text)
    assert load_config(tmp_path / "config.yaml") == config
    wanted = {
        "base: lab": "base/lab",
        "name: renoise": "method/smpo",
        "max_steps: 100": "command line",
        "seed: 3": str(tmp_path / "mine.yaml"),
        "ema_decay: null": "default",
        "lora: null": "default",
    }
    assert all(f"{value}  # {layer}\n" in text for value, layer in wanted.items())


@pytest.mark.parametrize(
    "words",
    [
        ("train.levels={weights: [1, 1, 4, 4]}",),
        ("train.levels={low: 0.25, high: 0.5, weights: [2]}", "train.reference={kind: ema, decay: 0.9}"),
        ("data.columns={prompt: 'a: b, c'}", "data.outcomes={'yes': left, 'no': right, '1': tie}"),
        ("lora={rank: 4, targets: [to_q, to_k]}", "validation.prompts=['a, b', '[c]', '{d}', 'x # y']"),
        ("train.stop={patience: 2}", "data.validation_share=0.1", "validation.every=1", "validation.pairs=[]"),
    ],
)
def test_nested_values_are_read_again(words: tuple[str, ...]) -> None:
    """Mappings and lists inside sections: what a run saves is its config."""
    config = load_config("lab/dpo", words)
    assert yaml.safe_load(config.to_yaml()) == config.as_dict()


def test_what_a_run_is_called() -> None:
    """Its method, and what makes it another one than that."""
    assert load_config("lab/dpo").method == "dpo"
    assert load_config("lab/linear_dpo").method == "linear_dpo"
    assert load_config("lab/dpo", ["train.max_steps=3"]).method == "dpo"
    assert load_config("lab/dpo", ["objective.name=hinge"]).method == "dpo, objective.name=hinge"
    found = load_config("lab/dpo", ["train.levels={low: 0.5}", "signal.swap=true"]).method
    assert found == "dpo, signal.swap=true, train.levels={low: 0.5, high: 1.0}"


BATCHES = {
    "dpo": ("1 x 128 x 16", "1 x 128 x 16"),
    "dpo_lora": ("16 x 2", "8 x 2"),
    "mapo": ("8 x 2", "8 x 2"),
    "dspo": ("16 x 128", ""),
    "dspo_sdxl_shift": ("", "8 x 256"),
    "dspo_sdxl_brier": ("", "8 x 256"),
    "dspo_sdxl_published": ("", "8 x 256"),
    "dmpo": ("8 x 32 x 8", "8 x 32 x 8"),
    "sdpo_dpo": ("8 x 32 x 8", "8 x 32 x 8"),
    "sdpo_dspo": ("8 x 32 x 8", "8 x 32 x 8"),
    "sdpo_dmpo": ("8 x 32 x 8", "8 x 32 x 8"),
    "kto": ("2 x 1 x 4", "2 x 1 x 4"),
    "inpo": ("1 x 128 x 8", "1 x 128 x 8"),
    "smpo": ("1 x 128 x 8", "1 x 128 x 8"),
}


@pytest.mark.parametrize("method", BATCHES)
def test_published_batches(method: str) -> None:
    """Images on one device x accumulation x devices, as each method's own launcher has it."""
    for backbone, wanted in zip(("sd15", "sdxl"), BATCHES[method], strict=True):
        for name in [name for name in REAL if re.fullmatch(f"{backbone}/.+/{method}", name)]:
            assert wanted, name
            assert wanted in stack([name]).settings["train", "pairs_per_step"].source


@pytest.mark.parametrize("backbone", ["sd15", "sdxl"])
@pytest.mark.parametrize("data_set", ["pickapic_v2", "hpdv3"])
def test_what_is_compared_with_arenapo_trains_as_it_does(backbone: str, data_set: str) -> None:
    """ArenaPO's ablations (its Tables 5, 7, 8) and its combinations have its whole train section."""
    wanted = load_config(f"{backbone}/{data_set}/arenapo").train
    for method in ("uniform_margin", "reward_margin", "reward_relabel", "reward_soft", "arenapo_dspo",
                   "arenapo_dspo_brier", "arena_image_dspo"):  # fmt: skip
        assert load_config(f"{backbone}/{data_set}/{method}").train == wanted, method


@pytest.mark.parametrize("name", [name for name in REAL if name.startswith("sdxl/")])
def test_micro_conditioning_is_that_of_the_script(name: str) -> None:
    """MaPO's and diffusers' scripts pass true sizes and crops, the Diffusion-DPO family [R,R,0,0,R,R]."""
    true = name.endswith(("/mapo", "/dpo_lora", "/dpo_hinge"))
    assert load_config(name).model.micro_conditioning == ("true" if true else "official")


def test_published_switch_has_the_published_micro_batch() -> None:
    """Its threshold acts on a micro-batch, so the size of one is part of the method: 8 in DSPO's SDXL launcher."""
    for data_set in ("pickapic_v2", "hpdv3"):
        assert load_config(f"sdxl/{data_set}/dspo_sdxl_published").train.micro_batch == 8


def test_parts_of_hpdv3_unpack_beside_their_json(tmp_path: Path) -> None:
    """The line that unpacks them, run on an archive cut in two."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(bytes(range(256)) * 40)
    subprocess.run(["tar", "-czf", "whole", "images"], cwd=tmp_path, check=True)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "hpdv3").mkdir()
    for part, piece in (("00", whole[:100]), ("01", whole[100:])):
        (tmp_path / "hpdv3" / f"images.tar.gz.{part}").write_bytes(piece)
    name = "sd15/hpdv3/dpo"
    (line,) = [line for line in commands(stack([name]), load_config(name), layers=[name]) if line.startswith("cat")]
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    assert (tmp_path / "hpdv3" / "images" / "a.jpg").read_bytes() == (tmp_path / "images" / "a.jpg").read_bytes()
