"""Control maps: edges and depths of pictures, in a folder that `generate --control-images` reads."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm
from transformers import DPTConfig, DPTForDepthEstimation

import tiny
from evaluation_folder import make_folder
from finepref.core.errors import ConfigError, InputError
from finepref.core.rng import numpy_generator
from finepref.evaluate import control_maps as module
from finepref.evaluate.control_maps import Chosen, control_maps
from finepref.evaluate.sampling import Control, read_map
from finepref.formats.controlmaps import read_maps


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DPT with random weights, as a folder."""
    folder = tmp_path_factory.mktemp("dpt")
    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    tiny.seeded(5, lambda: DPTForDepthEstimation(config)).save_pretrained(folder)
    settings = {"image_processor_type": "DPTImageProcessor", "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def picture(path: Path, *, size: tuple[int, int] = (40, 24), seed: int = 0, **options: object) -> Path:
    """Random pixels of a size (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_depth_is_that_of_the_plain_model(network: Path, tmp_path: Path) -> None:
    """Bicubic to 32 x 32, standardised to -1..1, the network, bicubic back, stretched to 0..255: by hand."""
    file = picture(tmp_path / "in" / "a.png")
    control_maps(tmp_path / "in", tmp_path / "out", kind="depth", depth_model=str(network))
    small = np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = torch.from_numpy(small / 255 * 2 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        depth = DPTForDepthEstimation.from_pretrained(network).eval()(pixels).predicted_depth[None]
    back = torch.nn.functional.interpolate(depth, size=(24, 40), mode="bicubic", align_corners=False)[0, 0]
    wanted = ((back - back.min()) / (back.max() - back.min()) * 255).numpy()
    found = np.asarray(Image.open(tmp_path / "out" / "00000.png"))
    assert found.shape == (24, 40, 3)
    assert np.ptp(found, axis=2).max() == 0
    assert np.abs(found[..., 0] - wanted).max() <= 1 + 255e-4  # cut to whole levels
    assert (found.min(), found.max()) == (0, 255)


def test_edges_of_a_half_white_picture(tmp_path: Path) -> None:
    """One line of edges along the step, nothing elsewhere; a step below the lower threshold is none."""
    pytest.importorskip("cv2")
    for row, level in enumerate((255, 20)):
        pixels = np.zeros((16, 32, 3), dtype=np.uint8)
        pixels[:, 16:] = level
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{row}.png")
    control_maps(tmp_path / "in", tmp_path / "out", kind="canny")
    strong, weak = (np.asarray(Image.open(tmp_path / "out" / f"0000{row}.png")) for row in (0, 1))
    columns = np.flatnonzero(strong[2:-2, :, 0].any(0))
    assert len(columns) == 1
    assert columns[0] in (15, 16)
    assert (strong[2:-2, columns[0]] == 255).all()
    assert not weak.any()
    control_maps(tmp_path / "in", tmp_path / "low", kind="canny", low=10, high=30)
    assert np.asarray(Image.open(tmp_path / "low" / "00001.png")).any()


def test_rows_are_those_that_generate_asks_for(network: Path, tmp_path: Path) -> None:
    """Numbers where every name is one, else places by name; upright, whatever the EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "numbers" / "7.jpg", exif=exif)
    picture(tmp_path / "numbers" / "00002.png", seed=1)
    for name in ("dog.png", "cat.webp", "notes.txt"):
        (picture if name != "notes.txt" else Path.write_text)(
            tmp_path / "names" / name, **({} if name != "notes.txt" else {"data": "x"})
        )
    for folder in ("numbers", "names"):
        control_maps(tmp_path / folder, tmp_path / f"{folder} maps", kind="depth", depth_model=str(network))
    by_number = Control("net", tmp_path / "numbers maps")
    assert read_map(by_number.file(7), None).size == (24, 40)
    assert read_map(by_number.file(2), (16, 16)).size == (16, 16)
    with pytest.raises(InputError, match="no control map of prompt row 0"):
        by_number.file(0)
    assert [(each.row, each.image) for each in read_maps(tmp_path / "names maps").maps] == [
        (0, "cat.webp"),
        (1, "dog.png"),
    ]
    assert Control("net", tmp_path / "names maps").record(2)["maps_sha256"]


def test_images_of_an_evaluation(network: Path, tmp_path: Path) -> None:
    """One model, prompt set and seed; each is asked for where there are several."""
    rows = make_folder(tmp_path / "e", {"set": ["a", "b", "c"]}, models=("base", "new"), seeds=(0, 4), size=16)

    def made(**chosen: object):
        options = {"kind": "depth", "depth_model": str(network)}
        return control_maps(tmp_path / "e", tmp_path / "out", chosen=Chosen(**chosen), **options)

    with pytest.raises(InputError, match=r"images of several models; name one of base, new"):
        made(seed=0)
    with pytest.raises(InputError, match="images of several seeds; name one of 0, 4"):
        made(model="new")
    with pytest.raises(InputError, match="no images of model newer; did you mean 'new'"):
        made(model="newer")
    assert not (tmp_path / "out").exists()
    maps = made(model="new", seed=4).maps
    wanted = {r.prompt_index: r.image_sha256 for r in rows if (r.model, r.seed) == ("new", 4)}
    assert {each.row: each.image_sha256 for each in maps} == wanted
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "00000.png", "00001.png", "00002.png", "finepref.json", "maps.json",
    ]  # fmt: skip


def test_a_second_run_draws_only_what_changed(network: Path, tmp_path: Path) -> None:
    """Equal pictures and settings: nothing is written. Another picture: all anew, and what is a person's stays."""
    picture(tmp_path / "in" / "0.png")
    picture(tmp_path / "in" / "1.png", seed=1)
    options = {"kind": "depth", "depth_model": str(network)}
    control_maps(tmp_path / "in", tmp_path / "out", **options)
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    control_maps(tmp_path / "in", tmp_path / "out", **options)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == first
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "in" / "1.png").unlink()
    control_maps(tmp_path / "in", tmp_path / "out", **options)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"00000.png", "mine.txt", "finepref.json", "maps.json"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["MyDepth"]}, "its depth is 'MyDepth' of 'transformers'"),
        ({"architectures": ["AutoModelForDepthEstimation"]}, "its depth is 'AutoModelForDepthEstimation'"),
        ({"architectures": None}, "its depth is None"),
        ({"auto_map": {"AutoModel": "code.py"}}, "names code that is not ours to run"),
        ({"model_type": "glpn"}, "model_type is 'glpn'"),
        ({"depth_estimation_type": "metric"}, "it gives distances"),
    ],
)
def test_models_that_are_not_loaded(network: Path, tmp_path: Path, change: dict, said: str) -> None:
    config = json.loads((network / "config.json").read_text()) | change
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    picture(tmp_path / "in" / "0.png")
    with pytest.raises(InputError, match=said):
        control_maps(tmp_path / "in", tmp_path / "out", kind="depth", depth_model=str(tmp_path / "net"))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_a_map_is_one_sentence(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """From the command line: exit 2, nothing written."""
    from finepref.cli.main import main

    picture(tmp_path / "in" / "0.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.png").write_bytes(b"<html>")
    (tmp_path / "none").mkdir()
    picture(tmp_path / "twice" / "1.png")
    picture(tmp_path / "twice" / "01.png")
    monkeypatch.setitem(sys.modules, "cv2", None)
    depth = ["--kind", "depth", "--depth-model", str(network)]
    for images, words, said in (
        ("in", ["--kind", "canny"], "pip install 'finepref[control]'"),
        ("in", ["--kind", "edges"], "unknown kind 'edges'"),
        ("in", ["--kind", "canny", "--low", "200"], "thresholds 200 and 200"),
        ("in", [*depth, "--low", "3"], "--low: no effect on depth maps"),
        ("in", ["--kind", "canny", "--depth-model", "x"], "--depth-model: no effect on canny maps"),
        ("in", [*depth, "--model", "new"], "no models, prompt sets or seeds to choose from"),
        ("bad", depth, "a web page"),
        ("none", depth, "no pictures"),
        ("absent", depth, "no such folder"),
        ("twice", depth, "two pictures of row 1"),
    ):
        arguments = ["finepref", "control-maps", str(tmp_path / images), "--out", str(tmp_path / "out"), *words]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2, words
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="it is one of the inputs"):
        control_maps(tmp_path / "in", tmp_path / "in", kind="depth", depth_model=str(network))
    with pytest.raises(ConfigError, match="opencv"):
        control_maps(tmp_path / "in", tmp_path / "out", kind="canny")


def pictures(folder: Path, count: int = 12) -> Path:
    for row in range(count):
        picture(folder / f"{row}.png", seed=row)
    return folder


def same(out: Path, wanted: Path) -> None:
    """A folder as another, and nothing beside it that several processes left."""
    found, drawn = ({path.name: path.read_bytes() for path in each.glob("*.png")} for each in (out, wanted))
    assert found == drawn != {}
    assert read_maps(out).maps == read_maps(wanted).maps
    assert not out.with_name(f"{out.name}.parts").exists()
    assert not [*out.parent.rglob(".finepref-*")]


def test_maps_share_by_share_are_those_of_one(network: Path, tmp_path: Path) -> None:
    images, how = pictures(tmp_path / "in"), {"kind": "depth", "depth_model": str(network)}
    control_maps(images, tmp_path / "one", **how)
    assert control_maps(images, tmp_path / "shares", shard=(1, 2), **how) is None
    assert not (tmp_path / "shares").exists()
    state = (images / "0.png").stat()
    picture(images / "0.png", seed=99)  # what is there was made beside others
    with pytest.raises(InputError, match="finished parts of other data"):
        control_maps(images, tmp_path / "shares", shard=(0, 2), **how)
    picture(images / "0.png", seed=0)
    os.utime(images / "0.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert control_maps(images, tmp_path / "shares", shard=(0, 2), **how) is not None
    same(tmp_path / "shares", tmp_path / "one")
    with pytest.raises(InputError, match="count from 0"):
        control_maps(images, tmp_path / "shares", shard=(2, 2), **how)


@pytest.mark.parametrize("attempt", range(3))
def test_three_processes_draw_and_one_is_killed(tmp_path: Path, attempt: int) -> None:
    pytest.importorskip("cv2")
    images, out = pictures(tmp_path / "in"), tmp_path / "three"
    control_maps(images, tmp_path / "one", kind="canny")
    settings, draw = module.canny(module.LOW, module.HIGH)

    def work(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": "3"}
        tqdm.set_lock(threading.RLock())  # else forks share one, which who is killed may hold
        module.canny = lambda *_: (settings, lambda image: (time.sleep(0.02), draw(image))[1])
        control_maps(images, out, kind="canny")

    fork = multiprocessing.get_context("fork")
    hands = [fork.Process(target=work, args=(rank,)) for rank in range(3)]
    for hand in hands:
        hand.start()
    time.sleep(float(numpy_generator(attempt, "many maps").uniform(0.03, 0.3)))
    assert hands[1].pid is not None
    os.kill(hands[1].pid, signal.SIGKILL)
    for hand in hands:
        hand.join()
    assert [hands[0].exitcode, hands[2].exitcode] == [0, 0]
    control_maps(images, out, kind="canny")  # what it left goes, who was killed last
    same(out, tmp_path / "one")
