"""Diversity: distances within a prompt, from pictures to the finding that they narrowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist, squareform
from transformers import CLIPModel

import tiny_scorers
from evaluation_folder import Table, make_folder
from finepref.core.errors import InputError
from finepref.core.provenance import sha256_file
from finepref.evaluate.compare import compare
from finepref.evaluate.diversity import ALONE, distances
from finepref.evaluate.score import score
from finepref.evaluate.scored_pairs import score_preferences
from finepref.evaluate.scorers import clip
from finepref.evaluate.scorers.preprocess import pixel_batch
from finepref.evaluate.scorers.scorer_rows import make
from finepref.formats.comparison import read_comparison
from finepref.formats.manifest import ImageRow, write_rows
from finepref.formats.preferences import ImageRef, Preference
from finepref.formats.scores import read_scores
from finepref.train.diagnose import overoptimised

SETS = {"own": [f"prompt {n}" for n in range(12)]}


def spread(by_model: dict[str, float]) -> Callable[[Path, list[ImageRow]], None]:
    """Write pictures whose two seeds are an angle apart, which depends on the model."""

    def write(folder: Path, rows: list[ImageRow]) -> None:
        made = []
        for row in rows:
            noise = np.random.default_rng(row.prompt_index).normal(0, 60, (32, 32, 3))
            other = np.random.default_rng(1000 + 7 * row.seed + row.prompt_index).normal(0, 60, (32, 32, 3))
            pixels = np.clip(127.5 + noise + by_model[row.model] * other, 0, 255).round().astype(np.uint8)
            pixels[0, 0] = np.asarray(Image.open(folder / row.path))[0, 0]  # which says which picture it is
            Image.fromarray(pixels).save(folder / row.path)
            made.append(replace(row, image_sha256=sha256_file(folder / row.path), size=(32, 32)))
        write_rows(folder, made)

    return write


@pytest.mark.parametrize(("count", "width"), [(2, 3), (5, 40), (9, 2)])
def test_distances(count: int, width: int) -> None:
    """scipy's cosine distances, meaned over the others."""
    rows = np.random.default_rng(count).normal(size=(count, width))
    expected = squareform(pdist(rows, "cosine")).sum(1) / (count - 1)
    np.testing.assert_allclose(distances(rows), expected, atol=1e-12)
    np.testing.assert_allclose(distances(np.ones((count, width))), 0, atol=1e-12)


def test_scores_of_a_folder(tmp_path: Path) -> None:
    """Among a model's pictures of a prompt, whatever else is scored; computed anew with what is there now."""
    rows = make_folder(tmp_path, SETS, seeds=(0, 1, 2), models=("base", "new"))
    spread({"base": 1.0, "new": 0.3})(tmp_path, rows)
    found = score(tmp_path, ["lab-diversity"])
    again = score(tmp_path, ["lab-reward"])
    held = {(row.key, row.scorer): row.value for row in again.rows}
    for row in found.rows:
        group = [other for other in found.rows if other.key[:-1] == row.key[:-1]]
        pixels = [
            np.asarray(Image.open(tmp_path / f"images/{o.model}/own/{o.prompt_index:05d}_s{o.seed}.png")) - 127.5
            for o in group
        ]
        expected = squareform(pdist(np.stack([each.ravel() for each in pixels]), "cosine")).sum(1) / 2
        assert row.value == pytest.approx(expected[group.index(row)], abs=1e-9)
        assert held[row.key, "lab-diversity"] == row.value
    assert read_scores(tmp_path).scorers["lab-diversity"].together
    means = {name: np.mean([r.value for r in found.rows if r.model == name]) for name in ("base", "new")}
    assert means["base"] > 2 * means["new"]


def test_a_picture_alone_has_none(tmp_path: Path) -> None:
    """A number needs another picture of the prompt; the reason says how to get one."""
    make_folder(tmp_path, SETS, seeds=(0,))
    rows = score(tmp_path, ["lab-diversity"]).rows
    assert all(math.isnan(row.value) and row.reason == ALONE for row in rows)


def test_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`diversity@PATH`: cosines of the image features of that CLIP, by transformers' own model."""
    tiny_scorers.fitted(monkeypatch)
    file = tiny_scorers.official_files(tmp_path, monkeypatch) / "HPS_v2_compressed.pt"
    scorer = make(f"diversity@{file}", device="cpu")
    pictures = tiny_scorers.pictures(4)
    model = CLIPModel(clip.clip_config(tiny_scorers.TINY_CLIP)).eval()
    model.load_state_dict(clip.from_open_clip(torch.load(file)["state_dict"]), strict=False)
    with torch.no_grad():
        pixels = pixel_batch(pictures, "pil_round", size=model.config.vision_config.image_size)
        features = model.get_image_features(pixel_values=pixels)
    features = getattr(features, "pooler_output", features)
    expected = squareform(pdist(features.double().numpy(), "cosine")).sum(1) / 3
    np.testing.assert_allclose(scorer.score(pictures, ["a dog"] * 4), expected, atol=1e-5)
    assert expected.min() > 0


def test_it_says_nothing_of_a_pair(tmp_path: Path) -> None:
    """Rewards are of one picture: it is refused for them before anything is scored."""
    image = ImageRef(data=b"x")
    pair = Preference(pair_id="a", prompt="p", image_0=image, image_1=image, label=1.0)
    with pytest.raises(InputError, match="nothing of one picture"):
        score_preferences([pair], ["lab-diversity"], tmp_path / "rewards.parquet")
    assert not (tmp_path / "rewards.parquet").exists()


@pytest.mark.parametrize(("new", "narrow"), [(0.3, True), (0.97, False), (1.5, False)])
def test_pictures_that_narrowed(tmp_path: Path, new: float, narrow: bool) -> None:
    """A fall by more than a quarter is a finding; with a judge that was trained on going up it is over-optimised."""
    rows = make_folder(tmp_path, SETS, seeds=(0, 1), models=("base", "new"), rewards={"new": ["taught"]})
    spread({"base": 1.0, "new": new})(tmp_path, rows)
    score(tmp_path, ["lab-diversity"])
    compared = compare(tmp_path, baseline="base")
    assert read_comparison(tmp_path).metrics["lab-diversity"].together
    found = overoptimised(compared, "new")
    assert (found is not None and found.kind == "narrowed") == narrow
    score(tmp_path, [Table(rows, lambda row: float(row.model == "new"), name="taught", fingerprint="t")])
    found = overoptimised(compare(tmp_path, baseline="base"), "new")
    assert (found is not None and found.kind == "overoptimised") == narrow
    if found is not None:
        assert (
            "taught, which it learned from, went up, and lab-diversity of the pictures of one prompt fell by"
            in found.text
        )


def test_pictures_that_were_replaced(tmp_path: Path) -> None:
    """A score of a group stands while all its pictures are the same; else it is to be made again, and says so."""
    rows = make_folder(tmp_path, SETS, seeds=(0, 1), models=("base", "new"))
    spread({"base": 1.0, "new": 0.3})(tmp_path, rows)
    before = {row.key: row.value for row in score(tmp_path, ["lab-diversity"]).rows}
    changed = rows[0].key
    other = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    other.save(tmp_path / rows[0].path)
    write_rows(tmp_path, [replace(row, image_sha256=sha256_file(tmp_path / row.path)) for row in rows])
    found = [row for row in score(tmp_path, ["lab-reward"]).rows if row.scorer == "lab-diversity"]
    for row in found:
        if row.key[:-1] == changed[:-1]:
            assert (math.isnan(row.value), row.reason) == (True, "not scored")
        else:
            assert row.value == before[row.key]
    again = {row.key: row.value for row in score(tmp_path, ["lab-diversity"]).rows if row.scorer == "lab-diversity"}
    assert not math.isnan(again[changed])


def test_the_only_readable_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is as alone as one without a second seed, and the command says why there is no number."""
    rows = make_folder(tmp_path, {"own": ["a dog"]}, seeds=(0, 1), models=("base",))
    (tmp_path / rows[1].path).write_bytes(b"no picture")
    found = score(tmp_path, ["lab-diversity"])
    assert found.rows[0].reason == ALONE
    assert "changed after it was listed" in found.rows[1].reason
    assert ALONE in capsys.readouterr().err
