"""Every value of a shipped config has one source in its header, that of the method's own paper or launcher."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config_headers import header, sources
from finepref.train.config import SHIPPED, load_config, shipped_configs

CONFIGS = shipped_configs()
REAL = [name for name in CONFIGS if not name.startswith("lab/")]
PLACES = {"base", "paths", "format", "folder", "file", "name"}  # what no paper states, and the rows of the axes


def agrees(text: str, value: object) -> bool:
    """Whether a value is what a header says."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(text) == value
    return text == (str(value).lower() if isinstance(value, bool) else value)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_value_has_one_source(name: str) -> None:
    """Every value that a config sets is named once among the sources of its header, and every number there is it."""
    body = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"))
    values = {key: value for section in body.values() for key, value in section.items() if key not in PLACES}
    assert len(values) == sum(key not in PLACES for section in body.values() for key in section)
    named = [pair for head, _ in sources(name) for pair in head.items() if pair != ("name", body["objective"]["name"])]
    assert sorted(key for key, _ in named) == sorted(values)
    for key, text in named:
        assert agrees(text, values[key]), f"{key} is {values[key]}, not {text}"
    numbers = re.findall(rf"\b({'|'.join(values)})[ =](-?\d[\d.]*(?:e-?\d+)?)", header(name))
    for key, text in numbers:
        assert float(text.rstrip(".")) == values[key], f"{key} is {values[key]}, not {text}"
    for head, words in sources(name):
        factors = re.search(r"\d+(?: x \d+)+", words)
        if factors:
            assert math.prod(map(int, factors[0].split(" x "))) == values["pairs_per_step"], words
            assert head.keys() == {"pairs_per_step"}


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
            (words,) = [words for head, words in sources(name) if "pairs_per_step" in head]
            assert wanted, name
            assert wanted in words


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
    (line,) = [line for line in header("sd15/hpdv3/dpo").splitlines() if line.startswith("  cat")]
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    assert (tmp_path / "hpdv3" / "images" / "a.jpg").read_bytes() == (tmp_path / "images" / "a.jpg").read_bytes()
