"""`finepref scorers` as a user types it: exit codes, what is printed, what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from finepref.cli.main import main
from finepref.core.files import read_parquet
from finepref.core.provenance import sha256_file
from finepref.evaluate.scorers import verify
from finepref.evaluate.scorers.scorer_rows import make
from finepref.evaluate.scorers.weights import read_state
from finepref.formats.manifest import ImageRow, write_rows
from finepref.formats.prompts import prompt_sha256
from tiny_endpoint import endpoint
from tiny_ksort import brightest_first, write_data
from tiny_scorers import bert_vocabulary, clip_vocabulary, draw, fitted, open_clip_state, picture, reward_state

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; its exit code."""

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["finepref", "scorers", *map(str, words)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return call


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fitted(monkeypatch)
    folder = clip_vocabulary(bert_vocabulary(tmp_path / "official"))
    torch.save({"state_dict": {n: t.half() for n, t in open_clip_state().items()}}, folder / "HPS_v2.1_compressed.pt")
    torch.save(reward_state(), folder / "ImageReward.pt")
    return folder


def test_list_is_light_and_complete() -> None:
    code = "import sys; sys.argv = ['finepref', 'scorers', 'list', '--json']; from finepref.cli.main import build\n"
    code += "try: build()()\nexcept SystemExit: print('torch' in sys.modules, file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [row["name"] for row in json.loads(found.stdout)]
    assert names[:5] == ["pickscore", "hpsv2.0", "hpsv2.1", "aesthetic", "clip-h"]
    assert found.stderr.strip() == "False"


def test_list_for_people(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15  # ours, and the three of the lab
    assert lines[2].split()[:3] == ["hpsv2.1", "tensor_aa", "Human"]


def test_convert_then_use(run: Run, official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = official / "HPS_v2.1_compressed.pt", tmp_path / "converted"
    assert run("convert", file, "--out", out, "--vocabulary", official) == 0
    assert f"use it as hpsv2.1@{out}" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json",
        "finepref.json",
        "finepref_scorer.json",
        "merges.txt",
        "model.safetensors",
        "vocab.json",
    ]
    assert {t.dtype for t in read_state(out).values()} == {torch.float16, torch.float32} - {torch.float32}
    assert make(f"hpsv2.1@{out}").fingerprint == make(f"hpsv2.1@{file}").fingerprint
    assert run("convert", file, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("convert", official / "missing.pt") == 2


def test_score_command_takes_a_local_spec(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole spec with variant and path through `finepref score`: the folder's scores are the scorer's."""
    spec = f"hpsv2.1:tensor_noaa@{official / 'HPS_v2.1_compressed.pt'}"
    folder, rows, images = tmp_path / "eval", [], []
    folder.mkdir()
    for index, prompt in enumerate(["a cat", "two dogs, running"]):
        images.append(picture(60, 50, index))
        images[-1].save(folder / f"{index}.png")
        digest = sha256_file(folder / f"{index}.png")
        rows.append(
            ImageRow("m", "p", index, prompt, prompt_sha256(prompt), 0, f"{index}.png", digest, "x", 1, 1.0, (60, 50))
        )
    write_rows(folder, rows)
    monkeypatch.setattr(sys, "argv", ["finepref", "score", str(folder), "--scorer", spec])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    table = read_parquet(folder / "scores.parquet").to_pylist()
    scorer = make(spec)
    assert [row["value"] for row in table] == scorer.score(images, [row.prompt for row in rows]).tolist()
    assert {(row["scorer"], row["fingerprint"]) for row in table} == {("hpsv2.1:tensor_noaa", scorer.fingerprint)}


def test_verify_head_with_published_numbers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A foreign head fails the check: exit 1; its own numbers pass: exit 0."""
    sizes = (768, 1024, 128, 64, 16, 1)
    state: dict[str, torch.Tensor] = {}
    for index, a, b in zip((0, 2, 4, 6, 7), sizes[:-1], sizes[1:], strict=True):
        state |= {f"layers.{index}.weight": draw((b, a), index) / a**0.5, f"layers.{index}.bias": draw((b,), index)}
    torch.save(state, tmp_path / "head.pth")
    assert run("verify", f"aesthetic@{tmp_path / 'head.pth'}") == 1
    captured = capsys.readouterr()
    assert captured.out.count("FAIL") == 6
    assert "6 of 6 numbers differ" in captured.err
    own = [check.found for check in verify.verify(f"aesthetic@{tmp_path / 'head.pth'}")]
    monkeypatch.setattr(verify, "HEAD_SCORES", tuple(own))
    assert run("verify", f"aesthetic@{tmp_path / 'head.pth'}") == 0
    assert capsys.readouterr().out.count("ok  ") == 6


def _csv(folder: Path, values: Any) -> Path:
    prompts = ["a cat", "two dogs, running"]
    for number in range(2):
        picture(60 + number, 50, number).save(folder / f"{number}.png")
    lines = [f'{n}.png,"{prompts[n]}",{values[n]!r}' for n in range(2)]
    (folder / "expected.csv").write_text("image,prompt,value\n" + "\n".join(lines) + "\n")
    return folder / "expected.csv"


@pytest.mark.parametrize("name", ["pickscore", "clip-h"])
def test_verify_against_values_of_the_original_package(run: Run, official: Path, tmp_path: Path, name: str) -> None:
    spec = f"{name}@{official / 'HPS_v2.1_compressed.pt'}"
    prompts = ["a cat", "two dogs, running"]
    values = make(spec).score([picture(60, 50, 0), picture(61, 50, 1)], prompts).tolist()
    assert run("verify", spec, "--expected", _csv(tmp_path, values)) == 0
    assert run("verify", spec, "--expected", _csv(tmp_path, [values[0] + 3e-6, values[1]])) == 1
    assert run("verify", spec, "--expected", _csv(tmp_path, [values[0] + 3e-6, values[1]]), "--tolerance", 1e-5) == 0
    assert run("verify", spec) == 2


def test_verify_pickscore_range_without_values(
    run: Run, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without a value: PickScore's cosines must be in the range that is known of it, others are shown."""
    _csv(tmp_path, [0.0, 0.0])
    (tmp_path / "rows.csv").write_text("image,prompt\n0.png,a cat\n1.png,a dog\n")
    file = official / "HPS_v2.1_compressed.pt"
    words = ("--expected", tmp_path / "rows.csv")
    assert run("verify", f"clip-h@{file}", *words) == 0
    values = make(f"pickscore@{file}").score([picture(60, 50, 0), picture(61, 50, 1)], ["a cat", "a dog"])
    monkeypatch.setattr(verify, "PICKSCORE_RANGE", (values.min() - 0.01, values.max() + 0.01))
    assert run("verify", f"pickscore@{file}", *words) == 0
    monkeypatch.setattr(verify, "PICKSCORE_RANGE", (values.min() - 0.01, values.max() - 0.01))
    assert run("verify", f"pickscore@{file}", *words) == 1


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "image,prompt,value\nx.png,p,number\n", "image,prompt\nx.png,p\n"]
)
def test_verify_bad_csv(run: Run, official: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    assert run("verify", f"clip-h@{official / 'HPS_v2.1_compressed.pt'}", "--expected", tmp_path / "bad.csv") == 2


def test_verify_published_images(
    run: Run, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ImageReward's README images and HPSv2's demo image, from a cache with our own pictures and their scores."""
    monkeypatch.setenv("FINEPREF_HOME", str(tmp_path / "home"))
    home = tmp_path / "home"
    home.mkdir()
    images = [picture(64, 64, number) for number in range(4)]
    spec = f"imagereward@{official / 'ImageReward.pt'}"
    scores = make(spec).score(images, [verify.README_PROMPT] * 4)
    known = {}
    for place, index in enumerate(np.argsort(-scores)):
        name = f"{place + 1}.webp"
        images[index].save(home / f"imagereward-{name}", format="PNG")
        known[name] = (sha256_file(home / f"imagereward-{name}"), float(scores[index]))
    monkeypatch.setattr(verify, "README_IMAGES", known)
    assert run("verify", spec) == 0
    assert capsys.readouterr().out.count("ok  ") == 5
    monkeypatch.setattr(verify, "README_IMAGES", {n: (sha, value + 0.03) for n, (sha, value) in known.items()})
    assert run("verify", spec) == 1

    hps = f"hpsv2.1:tensor_noaa@{official / 'HPS_v2.1_compressed.pt'}"
    images[0].save(home / verify.HPS_IMAGE.name, format="PNG")
    demo = verify.UrlFile("file:///nowhere", sha256_file(home / verify.HPS_IMAGE.name), verify.HPS_IMAGE.name)
    monkeypatch.setattr(verify, "HPS_IMAGE", demo)
    assert run("verify", hps) == 1
    monkeypatch.setattr(verify, "HPS_SCORE", float(make(hps).score(images[:1], [verify.HPS_PROMPT])[0]))
    capsys.readouterr()
    assert run("verify", hps) == 0
    assert [line.split(",")[2].split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "tensor_noaa",
        "pil_round",
        "pil_floor",
        "tensor_aa",
    ]


def test_verify_benchmark_images(run: Run, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of each style and of all, times 100, against the published row of the preprocess."""
    spec, means, every = f"hpsv2.1@{official / 'HPS_v2.1_compressed.pt'}", [], []
    for number, style in enumerate(verify.HPS_STYLES):
        (tmp_path / "images" / style).mkdir(parents=True)
        prompts = [f"{style} {index}" for index in range(3)]
        (tmp_path / f"{style}.json").write_text(json.dumps(prompts))
        files = [tmp_path / "images" / style / f"{index:05d}.jpg" for index in range(3)]
        for index, file in enumerate(files):
            picture(64, 64, 10 * number + index).save(file)
        every.append(make(spec).score([Image.open(file) for file in files], prompts))
        means.append(100 * every[-1].mean())
    row = (*means, 100 * np.concatenate(every).mean())
    monkeypatch.setitem(verify.HPS_BENCHMARK, "tensor_aa", row)
    words = ("--images", tmp_path / "images", "--prompts", tmp_path)
    assert run("verify", spec, *words) == 0
    monkeypatch.setitem(verify.HPS_BENCHMARK, "tensor_aa", (*row[:4], row[4] + 0.1))
    assert run("verify", spec, *words) == 1
    assert run("verify", spec, "--images", tmp_path / "images") == 2
    assert run("verify", spec.replace("hpsv2.1@", "hpsv2.0@"), *words) == 2


def test_ksort_from_prompts_to_score(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data")
    assert run("ksort", data, "--write-prompts", tmp_path / "prompts.json") == 0
    prompts = [row["prompt"] for row in json.loads((tmp_path / "prompts.json").read_text())]
    assert prompts == [f"prompt {number}" for number in range(6)]
    capsys.readouterr()

    folder = tmp_path / "images"
    folder.mkdir()
    rows = []
    for model, level in (("new", 250), ("old", 10)):
        for index, prompt in enumerate(prompts):
            path = folder / f"{model}-{index}.png"
            Image.new("RGB", (16, 16), (level, 0, 0)).save(path)
            rows.append(
                ImageRow(model, "k", index, prompt, "", 0, path.name, sha256_file(path), "ddim", 1, 1.0, (16, 16))
            )
    write_rows(folder, rows)
    with endpoint(brightest_first) as script:
        (tmp_path / "judge.yaml").write_text(yaml.safe_dump({"base_url": script.url, "model": "m", "retries": 0}))
        words = ("ksort", data, "--images", folder, "--judge", tmp_path / "judge.yaml", "--limit", 4)
        assert run(*words, "--out", tmp_path / "x") == 2
        assert "--model new|old" in capsys.readouterr().err
        assert run(*words, "--out", tmp_path / "x", "--model", "gnu") == 2
        assert run(*words, "--out", tmp_path / "new", "--model", "new") == 0
        assert "4 comparisons, 0 unanswered" in capsys.readouterr().out
        assert run(*words, "--out", tmp_path / "old", "--model", "old") == 0
    results = [json.loads((tmp_path / name / "ksort.json").read_text()) for name in ("new", "old")]
    assert results[0]["score"] > results[1]["score"] + 5
    assert run("ksort", data) == 2


def test_unknown_names_exit_2(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "pikscore") == 2
    assert "did you mean 'pickscore'" in capsys.readouterr().err
