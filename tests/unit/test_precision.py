"""Half precision and memory of `generate` and `score`: as diffusers has it, another result, one network at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
import tiny_scorers
from evaluation_folder import make_folder
from finepref.core.errors import InputError
from finepref.core.files import parquet_meta
from finepref.evaluate import generate as module
from finepref.evaluate.generate import generate
from finepref.evaluate.named_models import as_source
from finepref.evaluate.sampling import noise_generator
from finepref.evaluate.score import score
from finepref.evaluate.scored_pairs import score_preferences
from finepref.evaluate.scorers import families
from finepref.evaluate.scorers.scorer_rows import make
from finepref.formats.manifest import read_record, read_rows
from finepref.formats.preferences import Preference
from finepref.formats.scores import read_scorers, read_scores

HOW = {"steps": 2, "guidance": 3.0, "size": (32, 32)}
TYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: tiny.BUILDERS[name](folder / name) for name in ("sd15", "sdxl")}


def images(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / row.path)).astype(int) for row in read_rows(folder)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_an_image_in_half_is_that_of_plain_diffusers(
    bases: dict[str, Path], tmp_path: Path, name: str, precision: str
) -> None:
    """`torch_dtype` of the whole pipeline; equal noise, rounded; not the image of float32."""
    import diffusers

    generate({"m": str(bases[name])}, ["a red circle"], [0], tmp_path / "half", precision=precision, **HOW)
    generate({"m": str(bases[name])}, ["a red circle"], [0], tmp_path / "full", **HOW)
    (found,), (full,) = images(tmp_path / "half"), images(tmp_path / "full")
    kind = "StableDiffusionPipeline" if name == "sd15" else "StableDiffusionXLPipeline"
    pipe = getattr(diffusers, kind).from_pretrained(bases[name], torch_dtype=TYPES[precision])
    pipe.unet.requires_grad_(False)  # torch chooses kernels by it
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 32, "width": 32}
    expected = pipe(["a red circle"], generator=[noise_generator(0, 0)], **options).images[0]
    assert (found == np.asarray(expected)).all()
    assert (found != full).any()
    assert np.abs(found - full).mean() < 4


def test_a_vae_that_asks_for_float32_gets_it_in_fp16(bases: dict[str, Path], tmp_path: Path) -> None:
    """SDXL's `force_upcast`, which diffusers obeys; SD1.5 decodes in half."""
    from diffusers import AutoencoderKL

    seen: list[torch.dtype] = []
    original = AutoencoderKL.decode

    def decode(self: Any, z: torch.Tensor, *given: Any, **named: Any) -> Any:
        seen.append(z.dtype)
        return original(self, z, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderKL, "decode", decode)
        for name in ("sd15", "sdxl"):
            generate({"m": str(bases[name])}, ["a dog"], [0], tmp_path / name, precision="fp16", **HOW)
    assert seen == [torch.float16, torch.float32]


def test_images_of_another_precision_are_another_result(bases: dict[str, Path], tmp_path: Path) -> None:
    base = {"m": str(bases["sd15"])}
    generate(base, ["a dog"], [0], tmp_path, **HOW)
    assert "precision" not in read_record(tmp_path).sampling["m/prompts"], "folders made before stay what they are"
    with pytest.raises(InputError, match="other weights, settings or prompts"):
        generate(base, ["a dog"], [0], tmp_path, precision="bf16", **HOW)
    generate(base, ["a dog"], [0], tmp_path, precision="bf16", overwrite=True, **HOW)
    assert read_record(tmp_path).sampling["m/prompts"]["precision"] == "bf16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "half"}, "precision: unknown precision 'half'; use one of no, bf16, fp16"),
        ({"offload": True}, "offload: it has no effect: .* CPU anyway; leave it out"),
    ],
)
def test_options_without_sense_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate({"m": "lab"}, ["a dog"], [0], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_loaded_pipeline_is_left_as_it_is(tmp_path: Path) -> None:
    from finepref.models.load import open_pipeline

    with pytest.raises(InputError, match="'m' is loaded already"):
        generate({"m": open_pipeline("lab")}, ["a dog"], [0], tmp_path, precision="bf16")


def test_offload_hands_the_pipeline_to_diffusers(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline stays on the CPU, where diffusers fetches one network after the other from."""
    from diffusers import DiffusionPipeline

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(module, "default_device", lambda: "xpu")
    monkeypatch.setattr(module, "device_name", str)
    monkeypatch.setattr(
        DiffusionPipeline,
        "enable_model_cpu_offload",
        lambda self, device: asked.append((self.device.type, str(device))),
    )
    generate({"m": str(bases["sd15"])}, ["a dog"], [0], tmp_path, offload=True, **HOW)
    assert [place for place, _ in asked] == ["cpu"]


def test_one_model_at_a_time_is_generated_with(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders, and names that have to be loaded to be known: none is held while another one is loaded."""
    from finepref.models import load

    loaded: list[weakref.ref] = []
    original = load.load_pipeline

    def watched(*given: Any, **named: Any) -> Any:
        assert [one for one in loaded if one() is not None] == []
        pipe = original(*given, **named)
        loaded.append(weakref.ref(pipe.unet))
        return pipe

    monkeypatch.setattr(load, "load_pipeline", watched)
    models = {"a": str(bases["sd15"]), "b": str(bases["sdxl"]), "c": "lab", "d": "lab:early"}
    generate(models, ["a dog"], [0], tmp_path, steps=1, size=(32, 32))
    assert len(loaded) == 6, "names are loaded once to be hashed and once to draw"
    assert len(images(tmp_path)) == 4


def test_a_name_is_what_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from finepref.evaluate.named_models import pipeline_fingerprint
    from finepref.models.load import open_pipeline

    assert as_source("lab").fingerprint == pipeline_fingerprint(open_pipeline("lab"))


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return tiny_scorers.official_files(tmp_path / "official", monkeypatch)


@pytest.mark.parametrize("spec", sorted(tiny_scorers.SPECS))
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_score_in_half_is_near_and_another_one(official: Path, spec: str, precision: str) -> None:
    """Towers in half, heads and cosines in float32; a fingerprint of its own, that of float32 as ever."""
    full, half = (make(f"{spec}@{official / tiny_scorers.SPECS[spec]}", precision=p) for p in ("no", precision))
    shown = tiny_scorers.pictures(4)
    expected, found = (scorer.score(shown, tiny_scorers.PROMPTS[:4]) for scorer in (full, half))
    spread = np.abs(expected).max()
    assert 0 < np.abs(found - expected).max() < (0.05 if precision == "bf16" else 0.01) * spread
    assert half.fingerprint != full.fingerprint
    network = half.network[0] if isinstance(half.network, tuple) else half.network
    types = {weight.dtype for name, weight in network.named_parameters() if "proj" in name or "fc" in name}
    assert TYPES[precision] in types


def test_scores_say_their_precision_and_are_scored_again(official: Path, tmp_path: Path) -> None:
    rows = make_folder(tmp_path / "eval", {"set": ["a dog", "a cat"]})
    spec = f"hpsv2.0@{official / 'HPS_v2_compressed.pt'}"
    first = score(tmp_path / "eval", [spec])
    assert parquet_meta(tmp_path / "eval" / "scores.parquet")["scorers"]["hpsv2.0"].keys() == {
        "fingerprint",
        "higher_is_better",
    }
    second = score(tmp_path / "eval", [spec], precision="bf16")
    assert len(first.rows) == len(second.rows) == len(rows)
    assert {row.fingerprint for row in first.rows}.isdisjoint({row.fingerprint for row in second.rows})
    assert read_scores(tmp_path / "eval").scorers["hpsv2.0"].precision == "bf16"


def test_what_has_one_precision_says_so(tmp_path: Path) -> None:
    make_folder(tmp_path, {"set": ["a dog"]})
    with pytest.raises(InputError, match="precision: lab-true has one precision; leave it out"):
        score(tmp_path, ["lab-true"], precision="bf16")
    with pytest.raises(InputError, match="unknown precision 'bf61'; did you mean 'bf16'"):
        score(tmp_path, ["lab-true"], precision="bf61")  # type: ignore[arg-type]


def test_one_scorer_at_a_time_holds_a_network(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an evaluation folder, and of pairs, whose blocks every scorer sees in turn."""
    loaded: list[weakref.ref] = []
    original = families.load_network

    def watched(*given: Any) -> Any:
        assert [one for one in loaded if one() is not None] == []
        network = original(*given)
        loaded.append(weakref.ref(network))
        return network

    monkeypatch.setattr(families, "load_network", watched)
    specs = [f"{name}@{official / tiny_scorers.SPECS[name]}" for name in ("hpsv2.0", "clip-h", "imagereward")]
    rows = make_folder(tmp_path / "eval", {"set": ["a dog", "a cat"]})
    score(tmp_path / "eval", specs)
    assert len(loaded) == 3
    refs = [row.image(tmp_path / "eval") for row in rows[:2]]
    pairs = [Preference(f"p{n}", "a dog", *refs, label=1.0) for n in range(2)]
    monkeypatch.setattr("finepref.evaluate.scored_pairs.BLOCK", 1)
    out = score_preferences(pairs, specs, tmp_path / "rewards.parquet")
    assert read_scorers(out).keys() == {"hpsv2.0", "clip-h", "imagereward"}
