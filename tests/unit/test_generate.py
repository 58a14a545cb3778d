"""Generation: noise, resuming, refusals, the manifest; on tiny diffusers pipelines."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finepref.core.errors import InputError
from finepref.core.provenance import sha256_file
from finepref.evaluate.generate import generate
from finepref.evaluate.named_models import (
    NamedModel,
    as_source,
    folder_fingerprint,
    parse_integers,
    parse_models,
    parse_size,
)
from finepref.evaluate.sampling import Sampling, noise_generator, scheduler_class
from finepref.formats.manifest import LINES, PromptsRecord, read_manifest, read_record, read_rows
from finepref.formats.prompts import PromptSet
from finepref.formats.run import RunSignals, write_run
from run_record import run_record

PROMPTS = PromptSet("few", ("a red circle", "a blue square", "a red circle"), {"style": ("x", "y", "")})


class FakePipeline:
    """Draws its picture from the generator it is given and counts the calls."""

    def __init__(self, shift: int = 0, fail_after: int | None = None) -> None:
        self.shift, self.fail_after, self.calls = shift, fail_after, []
        self.components: dict = {}
        self.scheduler = type("FakeScheduler", (), {})()
        self.safety_checker = "present"

    def set_progress_bar_config(self, disable: bool) -> None:
        self.quiet = disable

    def __call__(self, *, prompt, generator, num_inference_steps, guidance_scale, output_type, **options):
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise KeyboardInterrupt
        self.calls.append((prompt, num_inference_steps, guidance_scale, options))
        noise = [torch.randint(0, 200, (6, 5, 3), generator=g).numpy() for g in generator]
        images = [Image.fromarray((n + self.shift).astype(np.uint8)) for n in noise]
        return type("Result", (), {"images": images})()


def source(pipeline: FakePipeline, fingerprint: str = "f") -> NamedModel:
    return NamedModel(lambda *_: pipeline, origin="fake", fingerprint=fingerprint, rewards=("r",))


def pixels(folder: Path, model: str) -> dict:
    rows = [row for row in read_rows(folder) if row.model == model]
    return {(r.prompt_index, r.seed): np.asarray(Image.open(folder / r.path)).astype(int) for r in rows}


def test_models_share_the_noise_and_rows_and_seeds_do_not(tmp_path: Path) -> None:
    generate({"a": source(FakePipeline()), "b": source(FakePipeline(7), "g")}, PROMPTS, [0, 5], tmp_path, steps=3)
    a, b = pixels(tmp_path, "a"), pixels(tmp_path, "b")
    assert a.keys() == {(row, seed) for row in range(3) for seed in (0, 5)}
    for key, image in a.items():
        assert (b[key] == image + 7).all()
    images = {image.tobytes() for image in a.values()}
    assert len(images) == 6  # equal prompts in rows 0 and 2 start from different noise


def test_shared_noise_is_one_for_all_prompts_but_not_for_all_seeds(tmp_path: Path) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS, [0, 1], tmp_path, noise="shared")
    a = pixels(tmp_path, "a")
    assert (a[(0, 0)] == a[(1, 0)]).all()
    assert (a[(0, 0)] != a[(0, 1)]).any()


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_the_batch_size_does_not_change_an_image(tmp_path: Path, batch_size: int) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS, [0, 1], tmp_path / "one", batch_size=3)
    generate({"a": source(FakePipeline())}, PROMPTS, [0, 1], tmp_path / "two", batch_size=batch_size)
    assert (tmp_path / "one" / LINES).read_bytes() == (tmp_path / "two" / LINES).read_bytes()


def test_the_manifest_says_everything_of_an_image(tmp_path: Path) -> None:
    pipeline = FakePipeline()
    generate({"a": source(pipeline)}, PROMPTS, [3], tmp_path, steps=9, guidance=2.5, size=(5, 6), negative_prompt="bad")
    first = json.loads((tmp_path / LINES).read_text().splitlines()[0])
    assert first == {
        "model": "a",
        "prompt_set": "few",
        "prompt_index": 0,
        "prompt": "a red circle",
        "prompt_sha256": "a1e4a280d27cad5b1aa05b230031f649a0ef0b265df51db178bcf44ccd129fd0",
        "seed": 3,
        "path": "images/a/few/00000_s3.png",
        "image_sha256": sha256_file(tmp_path / "images/a/few/00000_s3.png"),
        "sampler": "FakeScheduler",
        "steps": 9,
        "guidance": 2.5,
        "size": [5, 6],
        "tags": {"style": "x"},
    }
    assert pipeline.calls[0][1:] == (9, 2.5, {"width": 5, "height": 6, "negative_prompt": ["bad"] * 3})
    assert pipeline.safety_checker is None
    record = read_record(tmp_path)
    assert record.models["a"].rewards == ("r",)
    assert record.prompt_sets["few"] == PromptsRecord(PROMPTS.sha256, 3)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS, [0, 1], tmp_path / "whole", batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        generate({"a": source(FakePipeline(fail_after=2))}, PROMPTS, [0, 1], tmp_path / "cut", batch_size=2)
    manifest = tmp_path / "cut" / LINES
    assert len(manifest.read_text().splitlines()) == 4
    manifest.write_text(
        manifest.read_text() + '{"model": "a", "prom', encoding="utf-8"
    )  # killed in the middle of a line
    again = FakePipeline()
    generate({"a": source(again)}, PROMPTS, [0, 1], tmp_path / "cut", batch_size=2)
    assert len(again.calls) == 2
    assert manifest.read_bytes() == (tmp_path / "whole" / LINES).read_bytes()


def test_shares_make_the_whole(tmp_path: Path) -> None:
    """Each share makes its own units and no other; one that is outside is refused before anything is written."""
    generate({"a": source(FakePipeline())}, PROMPTS, [0, 1], tmp_path / "whole", batch_size=1)
    made = []
    for index in (2, 0, 1):
        pipeline = FakePipeline()
        generate({"a": source(pipeline)}, PROMPTS, [0, 1], tmp_path / "shares", batch_size=1, shard=(index, 3))
        made.append(len(pipeline.calls))
    assert made == [2, 2, 2]
    assert pixels(tmp_path / "shares", "a").keys() == pixels(tmp_path / "whole", "a").keys()
    assert (tmp_path / "shares" / LINES).read_text() == (tmp_path / "whole" / LINES).read_text()
    with pytest.raises(InputError, match="shard 3 of 3; count from 0"):
        generate({"a": source(FakePipeline())}, PROMPTS, [0], tmp_path / "other", shard=(3, 3))
    assert not (tmp_path / "other").exists()


def test_a_finished_folder_loads_no_model(tmp_path: Path) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS, [0], tmp_path)

    def load():
        raise AssertionError("loaded")

    generate({"a": dataclasses.replace(source(FakePipeline()), load=load)}, PROMPTS, [0], tmp_path)


def test_the_unit_of_a_damaged_or_missing_image_is_made_again(tmp_path: Path) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS, [0], tmp_path, batch_size=2)
    before = (tmp_path / LINES).read_bytes()
    for name, calls in (("00000_s0", ["a red circle", "a blue square"]), ("00002_s0", ["a red circle"])):
        path = tmp_path / f"images/a/few/{name}.png"
        path.write_bytes(b"broken") if calls[1:] else path.unlink()
        pipeline = FakePipeline()
        generate({"a": source(pipeline)}, PROMPTS, [0], tmp_path, batch_size=1)
        assert [call[0] for call in pipeline.calls] == [[prompt] for prompt in calls]
        assert (tmp_path / LINES).read_bytes() == before


def test_a_folder_takes_more_prompts_seeds_sets_and_models(tmp_path: Path) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS.head(2), [0], tmp_path)
    generate({"a": source(FakePipeline())}, PROMPTS, [0, 1], tmp_path)
    generate({"a": source(FakePipeline())}, PromptSet("more", ("z",)), [0], tmp_path, steps=9)
    found = generate({"b": source(FakePipeline(), "other")}, PROMPTS, [0], tmp_path)
    assert len(found.rows) == 6 + 1 + 3
    assert found == read_manifest(tmp_path)


@pytest.mark.parametrize(
    "change", [{"steps": 4}, {"guidance": 1.0}, {"noise": "shared"}, {"size": (8, 8)}, {"negative_prompt": ""}]
)
def test_other_settings_are_refused_and_overwrite_starts_again(tmp_path: Path, change: dict) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS, [0], tmp_path)
    before = (tmp_path / LINES).read_bytes()
    with pytest.raises(InputError, match="other weights, settings or prompts"):
        generate({"a": source(FakePipeline())}, PROMPTS, [0], tmp_path, **change)
    assert (tmp_path / LINES).read_bytes() == before
    pipeline = FakePipeline()
    generate({"a": source(pipeline)}, PROMPTS, [0], tmp_path, overwrite=True, **change)
    assert len(pipeline.calls) == 1


def test_other_weights_or_prompts_are_refused_even_for_another_set(tmp_path: Path) -> None:
    generate({"a": source(FakePipeline())}, PROMPTS, [0], tmp_path)
    with pytest.raises(InputError, match="other weights"):
        generate({"a": source(FakePipeline(), "changed")}, PromptSet("more", ("z",)), [0], tmp_path)
    with pytest.raises(InputError, match="prompts"):
        generate({"a": source(FakePipeline())}, PromptSet("few", ("another", "a blue square")), [0], tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"batch_size": 0}, "batch of 0"),
        ({"steps": 0}, "0 sampling steps"),
        ({"guidance": -1.0}, "guidance of -1"),
        ({"guidance": float("nan")}, "guidance of nan"),
        ({"models": {}}, "no model"),
        ({"models": {"../x": source(FakePipeline())}}, "folder name"),
        ({"prompts": PromptSet("a/b", ("x",))}, "folder name"),
        ({"scheduler": "eular"}, "did you mean 'euler'"),
        ({"noise": "none"}, "noise 'none'"),
    ],
)
def test_unusable_options_are_refused(tmp_path: Path, options: dict, said: str) -> None:
    given = {"models": {"a": source(FakePipeline())}, "prompts": PROMPTS, "seeds": [0], "out": tmp_path / "x"}
    with pytest.raises(InputError, match=said):
        generate(**{**given, **options})
    assert not (tmp_path / "x" / LINES).exists()


def test_zero_guidance_is_a_guidance() -> None:
    assert Sampling(steps=1, guidance=0.0).guidance == 0.0


def test_schedulers_by_short_name_and_by_class() -> None:
    assert scheduler_class("ddim").__name__ == "DDIMScheduler"
    assert scheduler_class("EulerDiscreteScheduler").__name__ == "EulerDiscreteScheduler"


def test_noise_is_a_function_of_seed_and_row() -> None:
    def draw(seed: int, row: int, noise: str = "per-prompt") -> list:
        return torch.randn(4, generator=noise_generator(seed, row, noise)).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(s, r)) for s in range(3) for r in range(3)}) == 9
    assert draw(1, 2, "shared") == draw(1, 7, "shared")


def test_words_of_the_command_line() -> None:
    assert parse_models(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    assert parse_integers("0, 2,-1", "--seeds") == [0, 2, -1]
    assert parse_size("64x32") == (64, 32)
    assert parse_size("64") == (64, 64)
    assert parse_size(None) is None
    for bad in (lambda: parse_models(["a"]), lambda: parse_models(["a=b", "a=c"]), lambda: parse_size("64x"),
                lambda: parse_size("0x4"), lambda: parse_integers("1,", "--seeds")):  # fmt: skip
        with pytest.raises(InputError):
            bad()


def test_a_run_folder_is_hashed_without_its_checkpoints(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "unet").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    (run / "unet" / "model.safetensors").write_bytes(b"weights")
    write_run(run, run_record(base_sha256="1", signals=RunSignals(kind="reward", sha256="", rewards=("pickscore",))))
    first = folder_fingerprint(run)
    (run / "checkpoints" / "x.safetensors").write_bytes(b"state")
    assert folder_fingerprint(run) == first
    found = as_source(run)
    assert (found.rewards, found.origin) == (("pickscore",), str(run))
    write_run(run, run_record(base_sha256="2"))
    assert as_source(run).fingerprint != found.fingerprint
    (run / "unet" / "model.safetensors").write_bytes(b"other")
    assert folder_fingerprint(run) != first
    with pytest.raises(InputError, match="no weights"):
        folder_fingerprint(tmp_path / "run" / "nothing")


@pytest.fixture(scope="module")
def tiny_sd(tmp_path_factory) -> Path:
    import tiny

    return tiny.sd15(tmp_path_factory.mktemp("sd15"))


def test_a_real_pipeline_starts_all_models_from_the_same_latents(tiny_sd: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd)
    seen = []
    original = pipeline.prepare_latents

    def spy(*args, **options):
        seen.append(original(*args, **options))
        return seen[-1]

    pipeline.prepare_latents = spy
    generate({"a": pipeline}, PROMPTS, [0], tmp_path / "a", steps=2, guidance=3.0, batch_size=3, scheduler="euler")
    generate({"b": pipeline}, PROMPTS, [0], tmp_path / "b", steps=2, guidance=3.0, batch_size=1, scheduler="euler")
    scale = seen[0].std() / torch.randn(seen[0].shape).std()
    for row in range(3):
        assert torch.equal(seen[0][row], seen[1 + row][0])
        direct = torch.randn(seen[0][row].shape, generator=noise_generator(0, row))
        assert torch.allclose(seen[0][row] / direct, (seen[0][row] / direct).flatten()[0].expand_as(direct), rtol=1e-4)
    assert scale > 1  # Euler scales the noise
    row = read_rows(tmp_path / "a")[0]
    assert (row.sampler, row.size) == ("EulerDiscreteScheduler", (32, 32))
