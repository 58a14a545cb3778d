"""Memory and time on the backbone pages are what `finepref plan` prints for the true architectures."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import architectures

from finepref.plan.cards import gpus_of
from finepref.plan.plan import plan_run
from finepref.plan.printed import describe
from finepref.train.config import load_config

PAGES = Path(__file__).resolve().parents[2] / "docs" / "backbones"
PARAMETERS = {
    "sd15": 859_520_964,
    "sdxl": 2_567_463_684,
    "sd3": 2_243_171_520,
    "flux": 11_901_408_320,
    "sana": 1_604_462_752,
    "qwen_image": 20_430_401_088,
}  # of the published checkpoints' denoisers
PROMPT = "```console\n$ finepref plan "


def blocks(page: str) -> list[tuple[list[str], str]]:
    """(words of a `finepref plan` command, what the page says that it prints)."""
    found = []
    for part in page.split(PROMPT)[1:]:
        command, *lines = part.partition("\n```\n")[0].splitlines()
        found.append((command.split(), "\n".join(lines).rstrip()))
    return found


def run_config(page: str, folder: Path) -> Path:
    """The page's own run.yaml, written."""
    path = folder / "run.yaml"
    path.write_text(page.partition("```yaml\n# run.yaml\n")[2].partition("```\n")[0])
    return path


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_page_shows_what_plan_prints(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    base = architectures.write_configs(tmp_path / "model", name)
    shown = blocks(page)
    assert shown
    for words, text in shown:
        assert words[0] == "-c"
        config = run_config(page, tmp_path) if words[1] == "run.yaml" else words[1]
        gpus = gpus_of([after for word, after in pairwise(words) if word == "--gpu"])
        overrides = [word for word in words[2:] if "=" in word]
        run = load_config(config, [*overrides, f"model.base={base}", "model.vae=null"])
        plan = plan_run(run, gpus=gpus, processes=1)
        assert describe(plan, prices={}) == text
        added = plan.counts.trained if run.lora is not None else 0
        assert plan.counts.parameters - added == PARAMETERS[name]
