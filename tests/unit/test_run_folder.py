"""What a run was made from: compared by content where the run is used, kept from being overwritten, read as it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.core.errors import InputError
from finepref.core.outfolders import mark, own_files
from finepref.core.provenance import sha256_folder
from finepref.evaluate.named_models import as_source
from finepref.formats.folders import EXPORT, LEFT, LORA
from finepref.formats.folders import RUN as RUN_FOLDER
from finepref.formats.run import write_run
from finepref.models.export import FORMATS, export
from finepref.models.family import family_of
from finepref.models.load import load_adapter, load_pipeline, open_pipeline
from finepref.models.run_folder import inputs_of, pipeline_sha256, starts
from finepref.models.source import locate
from finepref.models.start import check_start, start_sha256
from finepref.train.config import load_config
from finepref.train.run import train_run
from run_record import run_record
from single_files import pack
from tiny import TRAINED, picture

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
OTHER = "is not the base that it was trained on, or has changed since; "


def made(base: Path, out: Path, kind: str = "lora", **model: str) -> Path:
    """A finished run of these models, with weights that were moved, as `finepref train` leaves it."""
    adapter = load_adapter(base, lora=TRAINED[kind], reference=False, init_from=model.get("init_from"))
    tiny.perturb(adapter)
    adapter.saving()(out)
    settings = {"base": str(base), **model}
    (out / "config.yaml").write_text(yaml.safe_dump({"model": settings}))
    source = locate(base)
    start = model.get("init_from")
    hashes = {
        "base_sha256": sha256_folder(base),
        "base_content": pipeline_sha256(source),
        "init_sha256": None if start is None else start_sha256(start, "unet", source),
    }
    write_run(out, run_record(base=str(base), **hashes))
    mark(out, RUN_FOLDER, hashed=own_files(out, LEFT))
    return out


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/, lora/, full/ and other/, a base of the same shapes."""
    folder = tmp_path_factory.mktemp("origin")
    tiny.sd15(folder / "other", seed=9)
    base = tiny.sd15(folder / "base")
    for kind in TRAINED:
        made(base, folder / kind, kind)
    return folder


@pytest.fixture
def world(origin: Path, tmp_path: Path) -> Path:
    """A copy of it whose runs name the base of the copy."""
    folder = shutil.copytree(origin, tmp_path / "world")
    for kind in TRAINED:
        rename(folder / kind, str(folder / "base"))
    return folder


def rename(run: Path, base: str) -> None:
    """Have a run name its base otherwise."""
    (run / "finepref.json").unlink(missing_ok=True)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "base": base}))
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"base": base}}))


def swap(world: Path) -> None:
    shutil.rmtree(world / "base")
    (world / "other").rename(world / "base")


@pytest.mark.parametrize("kind", TRAINED)
def test_another_base_under_the_same_name(world: Path, kind: str) -> None:
    run = world / kind
    swap(world)
    for use in (
        lambda: open_pipeline(str(run)),
        lambda: export(run, world / "base", world / "out", format="merged"),
        lambda: export(run, world / "base", world / "out.safetensors", format="single-file"),
        lambda: export(run, world / "base", world / "out", format="diffusers"),
    ):
        with pytest.raises(InputError, match=re.escape(f"{run}: {world / 'base'} {OTHER}")):
            use()


def test_a_run_of_the_version_before_is_compared_by_the_hash_that_it_has(world: Path) -> None:
    record = json.loads((world / "lora" / "run.json").read_text())
    del record["base_content"]
    (world / "lora" / "run.json").write_text(json.dumps(record))
    open_pipeline(str(world / "lora"))
    swap(world)
    with pytest.raises(InputError, match=OTHER):
        open_pipeline(str(world / "lora"))


def test_a_lora_of_a_run_goes_on_upon_its_own_base(world: Path) -> None:
    """On another one only where its file is named."""
    run, other = world / "lora", locate(world / "other")
    kind = family_of(other, "auto")
    check_start(locate(world / "base"), kind, run, None)
    with pytest.raises(InputError, match=f"{OTHER}give .*pytorch_lora_weights.safetensors, to start from it"):
        check_start(other, kind, run, None)
    check_start(other, kind, run / "pytorch_lora_weights.safetensors", None)


def test_a_base_that_moved_or_has_more_beside_it_is_the_same(world: Path) -> None:
    """Notes, a twin in half precision, and what another version of a library would note of itself."""
    base, config = world / "base", world / "base" / "unet" / "config.json"
    (base / "notes.json").write_text("{}")
    half = {name: value.half() for name, value in load_file(base / UNET).items()}
    save_file(half, base / UNET.replace(".safetensors", ".fp16.safetensors"), metadata={"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_diffusers_version": "9"}))
    open_pipeline(str(world / "lora"))
    base.rename(world / "moved")
    assert export(world / "lora", world / "moved", world / "out", format="diffusers").is_dir()
    for part, name, key in (("scheduler", "scheduler_config.json", "prediction_type"), ("vae", "config.json", "x")):
        file = world / "moved" / part / name
        kept = file.read_text()
        file.write_text(json.dumps(json.loads(kept) | {key: "v_prediction"}))
        with pytest.raises(InputError, match=OTHER):
            export(world / "lora", world / "moved", world / "out2", format="merged")
        file.write_text(kept)


def test_the_full_weights_below_a_lora_may_not_change(world: Path) -> None:
    run = made(world / "base", world / "run", init_from=str(world / "full"))
    open_pipeline(str(run))
    tensors = load_file(world / "full" / UNET)
    save_file({name: value * 1.1 for name, value in tensors.items()}, world / "full" / UNET)
    with pytest.raises(InputError, match=f"{run}: .*full, which it started from, has changed since it"):
        open_pipeline(str(run))


def test_the_variant_of_a_run_is_read_however_its_base_is_spelt(world: Path) -> None:
    base = world / "base"
    for path in [*base.rglob("*.safetensors")]:
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    (world / "lora" / "run.json").unlink()
    (world / "lora" / "config.yaml").write_text(yaml.safe_dump({"model": {"base": str(base), "variant": "fp16"}}))
    export(world / "lora", f"{base}/../base/", world / "out", format="merged")
    assert (world / "out" / UNET).is_file()


def test_what_a_run_was_made_from_is_not_overwritten(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its base nor its start, also where `~` stands for the home folder, nor the folder of a config."""
    monkeypatch.setenv("HOME", str(world))
    start = export(world / "full", world / "base", world / "start", format="merged")
    vae = export(world / "full", world / "base", world / "vae", format="merged")
    run = made(world / "base", world / "run", init_from=str(start), vae=str(vae))
    last = made(world / "base", world / "last", init_from=str(run))
    assert {*inputs_of(yaml.safe_load((last / "config.yaml").read_text())["model"])} >= {run, start, vae}
    for taken in (start, vae):
        with pytest.raises(InputError, match="it is one of the inputs"):
            export(last, world / "base", taken, format="merged", overwrite=True)
    mark(world / "base", EXPORT)
    rename(world / "lora", "~/base")
    with pytest.raises(InputError, match="it is one of the inputs"):
        export(world / "lora", "~/base", world / "base", format="merged", overwrite=True)
    words = ["model.base=~/base", "model.config=~/start", "objective.name=dpo"]
    for out, said in (("base/run", "it lies in .*base, which is read"), ("start", "it is one of the inputs")):
        with pytest.raises(InputError, match=said):
            train_run(load_config([], words), world / out)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_starts(world: Path, length: int) -> None:
    runs = [shutil.copytree(world / "lora", world / f"run{number}") for number in range(length)]
    for run, start in zip(runs, [*runs[1:], runs[0]], strict=True):
        model = {"base": str(world / "base"), "init_from": f"{start}/"}
        (run / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    with pytest.raises(InputError, match=r"config\.yaml: by its model\.init_from it starts from .*, which starts from"):
        export(runs[0], world / "base", world / "out", format="kohya")
    with pytest.raises(InputError, match="which starts from it"):
        [*starts(runs[-1])]


def test_a_chain_of_starts_that_ends(world: Path) -> None:
    first = made(world / "base", world / "first", init_from=str(world / "lora"))
    second = made(world / "base", world / "second", init_from=str(first))
    assert [*starts(second)] == [str(first), str(world / "lora")]
    open_pipeline(str(second))


@pytest.mark.parametrize(("key", "value"), [("vae", 5), ("init_from", ["a"]), ("init_from", ""), ("config", {"a": 1})])
def test_a_config_that_names_no_name(world: Path, key: str, value: object) -> None:
    (world / "lora" / "config.yaml").write_text(yaml.safe_dump({"model": {key: value}}))
    with pytest.raises(InputError, match=rf"config\.yaml: model\.{key} is .*, where a name is wanted"):
        open_pipeline(str(world / "lora"))


@pytest.mark.parametrize("base", ["", "\0", "no/such/folder"])
def test_a_run_whose_base_cannot_be_a_name(world: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    """An empty one is not the working folder, which is a pipeline here."""
    monkeypatch.chdir(world / "base")
    (world / "lora" / "config.yaml").unlink()
    record = json.loads((world / "lora" / "run.json").read_text())
    (world / "lora" / "run.json").write_text(json.dumps({**record, "base": base}))
    uses: list[Callable[[], object]] = [
        lambda: open_pipeline(str(world / "lora")),
        lambda: export(world / "lora", base, world / "out", format="merged"),
    ]
    for use in uses:
        with pytest.raises(InputError, match="no such model folder"):
            use()


@pytest.mark.parametrize("key", ["init_from", "vae", "config"])
def test_an_empty_name_in_a_config(key: str) -> None:
    words = ["model.base=lab", f"model.{key}=''"]
    with pytest.raises(ValueError, match=rf"model\.{key}"):
        load_config([], [*words, "objective.name=dpo"])


def spoil(file: Path) -> None:
    """Change the last byte of a file."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 0x20]))


@pytest.mark.parametrize(("kind", "name"), [("full", UNET), ("lora", LORA), ("full", "unet/config.json")])
def test_damage_is_not_exported(origin: Path, tmp_path: Path, kind: str, name: str) -> None:
    run = shutil.copytree(origin / kind, tmp_path / "run")
    spoil(run / name)
    for format in FORMATS:
        with pytest.raises(InputError, match=f"{name}: its content has changed since finepref wrote it"):
            export(run, origin / "base", tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()
    if kind == "lora":  # the file carries a hash itself
        (run / "finepref.json").unlink()
        with pytest.raises(InputError, match="its content has changed since finepref wrote it"):
            export(run, origin / "base", tmp_path / "out", format="diffusers")


@pytest.mark.parametrize(
    ("format", "place", "name"),
    [("single-file", UNET, "conv_out.bias"), ("merged", VAE, "decoder.conv_out.bias")],
)
def test_numbers_that_float16_does_not_have(world: Path, format: str, place: str, name: str) -> None:
    file = world / "base" / place
    save_file({**(held := load_file(file)), name: held[name] * 0 + 1e5}, file, metadata={"format": "pt"})
    run = made(world / "base", world / "run")
    shown = r"\S*out\S*bias" if format == "single-file" else rf"{place.partition('/')[0]}\.{re.escape(name)}"
    with pytest.raises(InputError, match=rf"half: {shown} holds 1e\+05, and float16 ends at 65504; leave it out"):
        export(
            run, None, world / "out.safetensors" if format == "single-file" else world / "out", format=format, half=True
        )
    assert not [*world.glob("out*")]


def test_half_is_all_of_a_merged_pipeline(origin: Path, tmp_path: Path) -> None:
    export(origin / "lora", None, tmp_path / "out", format="merged", half=True)
    files = [*(tmp_path / "out").rglob("*.safetensors")]
    assert len(files) == 3
    assert {value.dtype for file in files for value in load_file(file).values()} == {torch.float16}


LINKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nowhere": (lambda folder: (folder / "x").symlink_to("/nonexistent"), "it is a link that leads nowhere"),
    "itself": (lambda folder: (folder / "x").symlink_to("x"), "it is a link that leads nowhere"),
    "above": (lambda folder: (folder / "x").symlink_to(folder.parent), "it is a link to a folder that it lies in"),
    "pipe": (lambda folder: os.mkfifo(folder / "x"), "it is neither a file nor a folder"),
}


@pytest.mark.parametrize("what", LINKS)
def test_what_cannot_be_copied(world: Path, what: str) -> None:
    make, said = LINKS[what]
    for folder, run, format in (("base/vae", "lora", "merged"), ("full/unet", "full", "diffusers")):
        make(world / folder)
        with pytest.raises(InputError, match=f"x: {said}.*; move it away"):
            export(world / run, None, world / "out", format=format)


@pytest.mark.parametrize(
    ("run", "out", "format", "said"),
    [
        ("nope", "out", "merged", "nope: no such run; give the folder of a finished run"),
        ("nope@5", "out", "merged", "nope@5: no such run"),
        ("base", "out", "diffusers", r"base: it holds no run\.json, as a finished run does"),
        ("lora@-1", "out", "merged", r"lora@-1: no such checkpoint; there are \S+lora@3, \S+lora@20; "),
        ("lora@1.5", "out", "merged", "lora@1.5: no such checkpoint; there are "),
        ("lora@", "out", "merged", "lora@: no such checkpoint; there are "),
        (f"lora@{'1' * 5000}", "out", "merged", "lora@1111"),
        ("full@5", "out", "merged", "full@5: no such checkpoint; there is none"),
        (
            "lora",
            "q.ckpt",
            "kohya",
            r"q\.ckpt: format kohya is one \.safetensors file, .*; name a folder, or a file NAME",
        ),
        ("lora", "q.PT", "single-file", r"one \.safetensors file, and this is the name of another"),
        (
            "lora",
            "q.safetensors",
            "merged",
            r"format merged is a folder, and this is the name of another; name a folder",
        ),
    ],
)
def test_names_that_stand_for_nothing(world: Path, run: str, out: str, format: str, said: str) -> None:
    for step in (3, 20):
        (world / "lora" / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    with pytest.raises(InputError, match=said):
        export(world / run, None, world / out, format=format)
    assert not (world / out).exists()


def test_an_export_of_the_trained_part_is_no_model(origin: Path, tmp_path: Path) -> None:
    for kind in TRAINED:
        out = export(origin / kind, None, tmp_path / kind, format="diffusers")
        with pytest.raises(InputError, match="an export of the trained part alone; give the run, or its"):
            open_pipeline(str(out))


def test_what_a_run_started_from(world: Path) -> None:
    """RUN@0: the base with the run's VAE and its start; the oracle is the start itself, decoded by hand."""
    base = world / "base"
    other = tiny.kl_vae(seed=9, scale=0.5)
    other.save_pretrained(world / "vae")
    plain = made(base, world / "plain")
    assert torch.equal(picture(open_pipeline(f"{plain}@0")), picture(load_pipeline(base)))
    for kind in TRAINED:
        run = made(base, world / f"on-{kind}", kind, init_from=str(world / kind), vae=str(world / "vae"))
        by_hand = load_pipeline(base, world / kind)
        by_hand.vae = other
        assert torch.equal(picture(open_pipeline(f"{run}@0")), picture(by_hand))
        names = (f"{run}@0", f"{plain}@0", run)
        assert len({as_source(name).fingerprint for name in names}) == 3
        assert as_source(names[0]).origin == names[0]
    swap(world)
    with pytest.raises(InputError, match=OTHER):
        open_pipeline(f"{plain}@0")
    with pytest.raises(InputError, match="no such checkpoint; there is none"):
        export(f"{plain}@0", None, world / "out", format="merged")


def test_a_start_that_changed_is_not_shown_as_the_start(world: Path) -> None:
    run = made(world / "base", world / "run", "full", init_from=str(world / "lora"))
    open_pipeline(f"{run}@0")
    file = world / "lora" / LORA
    with safe_open(file, "pt") as held:
        about = {key: value for key, value in held.metadata().items() if key != "finepref_sha256"}
    save_file({name: value * 2 for name, value in load_file(file).items()}, file, metadata=about)
    open_pipeline(str(run))
    with pytest.raises(InputError, match=f"{run}: .*lora, which it started from, has changed since"):
        open_pipeline(f"{run}@0")


def test_the_start_of_a_run_on_one_file_needs_no_config(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINEPREF_HOME", str(world / "home"))
    file = pack(world / "base", world / "base.safetensors")
    settings = {"config": str(world / "base")}
    source = locate(file, **settings)
    run = world / "lora"
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "base": str(file), "base_content": pipeline_sha256(source)}))
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"base": str(file), **settings}}))
    assert torch.equal(picture(open_pipeline(f"{run}@0")), picture(load_pipeline(world / "base")))
    for number, base in enumerate((f"{file.parent}/./{file.name}", source.folder)):
        assert export(run, base, world / f"out{number}", format="diffusers").is_dir()
