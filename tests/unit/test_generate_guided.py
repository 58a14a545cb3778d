"""Generation with control maps and with a refiner, on tiny diffusers pipelines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from finepref.core.errors import InputError
from finepref.evaluate.generate import generate
from finepref.evaluate.named_models import NamedModel
from finepref.evaluate.sampling import Control, Refiner, Sampling, noise_generator, prepare, read_map
from finepref.formats.manifest import read_record, read_rows

PROMPTS = ("a red circle", "a blue square")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from diffusers import (
        ControlNetModel,
        StableDiffusionPipeline,
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLPipeline,
    )

    root = tmp_path_factory.mktemp("guided")
    found = {"sd": tiny.sd15(root / "sd"), "sdxl": tiny.sdxl(root / "sdxl")}
    for name, kind in (("sd", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)):
        unet = kind.from_pretrained(found[name]).unet
        network = tiny.seeded(
            3, lambda unet=unet: ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 8))
        )
        # from_unet leaves the zero convolutions at zero: give them weights so that the map can be seen
        with torch.no_grad():
            for parameter in network.controlnet_down_blocks.parameters():
                parameter.fill_(0.02)
            for parameter in network.controlnet_cond_embedding.conv_out.parameters():
                parameter.fill_(0.3)
        network.save_pretrained(root / f"control-{name}")
        found[f"control-{name}"] = root / f"control-{name}"
    base = StableDiffusionXLPipeline.from_pretrained(tiny.sdxl(root / "second", seed=5))
    refiner = StableDiffusionXLImg2ImgPipeline(**base.components, requires_aesthetics_score=False)
    refiner.save_pretrained(root / "refiner")
    found["refiner"] = root / "refiner"
    maps = root / "maps"
    maps.mkdir()
    for row, pixels in enumerate(
        (np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1)), np.eye(32, dtype=np.uint8) * 255)
    ):
        Image.fromarray(pixels).save(maps / f"{row:05d}.png")
    found["maps"] = maps
    return found


def source(folder: Path, kind: str) -> NamedModel:
    import diffusers

    return NamedModel(
        lambda *_: getattr(diffusers, kind).from_pretrained(folder), origin=str(folder), fingerprint=str(folder)
    )


def images(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / row.path)).astype(int) for row in read_rows(folder)]


@pytest.mark.parametrize(("name", "kind"), [("sd", "StableDiffusionPipeline"), ("sdxl", "StableDiffusionXLPipeline")])
def test_control_maps_reach_the_network_by_row(folders: dict, tmp_path: Path, name: str, kind: str) -> None:
    model = {"a": source(folders[name], kind)}

    def run(folder: str, scale: float, batch_size: int = 2) -> list[np.ndarray]:
        control = Control(str(folders[f"control-{name}"]), folders["maps"], scale)
        options = {"steps": 2, "guidance": 3.0, "size": (32, 32), "batch_size": batch_size}
        generate(model, PROMPTS, [0], tmp_path / folder, control=control, **options)
        return images(tmp_path / folder)

    plain, zero, strong, alone = run("p", 0.0), run("z", 0.0, 1), run("s", 1.0), run("o", 1.0, 1)
    generate(model, PROMPTS, [0], tmp_path / "none", steps=2, guidance=3.0, size=(32, 32))
    for row in range(2):
        assert np.abs(plain[row] - zero[row]).max() <= 1
        assert np.abs(plain[row] - images(tmp_path / "none")[row]).max() <= 1  # scale 0 is no control
        assert np.abs(strong[row] - plain[row]).max() > 1
        assert np.abs(strong[row] - alone[row]).max() <= 1
    record = read_record(tmp_path / "s").sampling["a/prompts"]["control"]
    assert record["scale"] == 1.0
    assert len(record["maps_sha256"]) == 64


def test_another_map_or_scale_is_another_setting(folders: dict, tmp_path: Path) -> None:
    control = Control("net", folders["maps"], 0.5)
    assert control.record(2) == control.record(2)
    assert control.record(1)["maps_sha256"] != control.record(2)["maps_sha256"]
    with pytest.raises(InputError, match="no control map of prompt row 2"):
        control.record(3)


def test_a_map_is_read_as_rgb_at_the_size_of_the_image(folders: dict, tmp_path: Path) -> None:
    found = read_map(folders["maps"] / "00001.png", (64, 48))
    assert (found.mode, found.size) == ("RGB", (64, 48))
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(InputError, match="not a readable image"):
        read_map(tmp_path / "bad.png", None)


def test_a_refiner_takes_the_last_steps_from_the_same_latents(folders: dict, tmp_path: Path) -> None:
    model = {"a": source(folders["sdxl"], "StableDiffusionXLPipeline")}
    options = {"steps": 5, "guidance": 3.0, "scheduler": "euler"}
    for folder, refiner in (("with", Refiner(str(folders["refiner"]), 0.6)), ("without", None)):
        generate(model, PROMPTS, [0], tmp_path / folder, refiner=refiner, **options)
    with_, without = images(tmp_path / "with"), images(tmp_path / "without")
    assert all(np.abs(a - b).max() > 1 for a, b in zip(with_, without, strict=True))

    # the same by hand: the base stops at 60 % of the noise, the refiner goes on from its latents
    import diffusers

    base = diffusers.StableDiffusionXLPipeline.from_pretrained(folders["sdxl"])
    second = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(folders["refiner"])
    base.scheduler = diffusers.EulerDiscreteScheduler.from_config(base.scheduler.config)
    second.scheduler = diffusers.EulerDiscreteScheduler.from_config(base.scheduler.config)
    shared = {"prompt": PROMPTS[0], "num_inference_steps": 5, "guidance_scale": 3.0}
    latents = base(**shared, denoising_end=0.6, output_type="latent", generator=noise_generator(0, 0)).images
    expected = second(**shared, image=latents, denoising_start=0.6).images[0]
    assert np.abs(np.asarray(expected).astype(int) - with_[0]).max() <= 1
    assert read_record(tmp_path / "with").sampling["a/prompts"]["refiner"]["start"] == 0.6


def test_pipelines_that_take_neither_are_refused(folders: dict) -> None:
    import diffusers

    class FluxPipeline:
        pass

    with pytest.raises(InputError, match="FluxPipeline takes no control map"):
        prepare(FluxPipeline(), Sampling(1, 1.0, control=Control("x", folders["maps"])))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folders["sd"])
    with pytest.raises(InputError, match="has no refiner"):
        prepare(pipeline, Sampling(1, 1.0, refiner=Refiner("x")))
    with pytest.raises(InputError, match="not a whole ControlNetModel"):
        prepare(pipeline, Sampling(1, 1.0, control=Control(str(folders["maps"]), folders["maps"])))
    with pytest.raises(InputError, match="starts at 1"):
        Refiner("x", 1.0)
    with pytest.raises(InputError, match="at once"):
        Sampling(1, 1.0, control=Control("x", folders["maps"]), refiner=Refiner("x"))
