"""What a model folder may do: name classes of a closed list, and nothing else; its code never runs."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.core.errors import InputError
from finepref.core.files import read_object, write_json
from finepref.models.classes import CLASSES, load_class
from finepref.models.encoder import LatentEncoder
from finepref.models.family import FAMILIES, family
from finepref.models.load import load_pipeline

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sd15(tmp_path_factory.mktemp("classes") / "base")


def written(name: str, **entries: Any) -> Change:
    """Entries of a JSON file of the folder; None removes one."""

    def change(folder: Path) -> None:
        changed = {**read_object(folder / name), **entries}
        write_json(folder / name, {key: value for key, value in changed.items() if value is not None})

    return change


def index(**entries: Any) -> Change:
    return written("model_index.json", **entries)


def code(name: str, *changes: Change) -> Change:
    """A Python file that leaves a trace when it is imported, and defines whatever is asked of it."""

    def change(folder: Path) -> None:
        text = f"open({str(folder / 'ran')!r}, 'w').close()\ndef __getattr__(name): return dict\n"
        (folder / name).write_text(text)
        for each in changes:
            each(folder)

    return change


def pickled(folder: Path) -> None:
    """A text encoder whose weights are a pickle."""
    import torch
    from transformers import CLIPTextModel

    place = folder / "text_encoder"
    weights = CLIPTextModel.from_pretrained(place).state_dict()
    (place / "model.safetensors").unlink()
    torch.save(weights, place / "pytorch_model.bin")


AUTO = {"AutoModel": "mine.Model", "AutoConfig": "mine.Config", "AutoTokenizer": ["mine.Cut", None]}
CASES: dict[str, tuple[Change, str]] = {
    "auto": (
        code("text_encoder/mine.py", index(text_encoder=["transformers", "AutoModel"]),
             written("text_encoder/config.json", auto_map=AUTO)),
        "model_index.json: its text_encoder is 'AutoModel' of 'transformers', which no family has; use a plain",
    ),
    "auto_map": (
        code("text_encoder/mine.py", written("text_encoder/config.json", auto_map=AUTO)),
        r"text_encoder/config.json: it names code that is not ours to run \(auto_map\); remove auto_map if the plain",
    ),
    "tokenizer": (
        code("tokenizer/mine.py", written("tokenizer/tokenizer_config.json", auto_map=AUTO)),
        r"tokenizer_config.json: it names code that is not ours to run \(auto_map\)",
    ),
    "kernel": (
        written("text_encoder/config.json", text={"_attn_implementation": "somebody/kernels"}),
        r"config.json: it names code that is not ours to run \(_attn_implementation\)",
    ),
    "module": (code("unet/my_module.py", index(unet=["my_module", "X"])), "its unet is 'X' of 'my_module', which no"),
    "shadow": (code("text_encoder/transformers.py"), "transformers.py: code beside a part, which is not ours"),
    "pipeline as part": (index(unet=["diffusers", "DiffusionPipeline"]), "its unet is 'DiffusionPipeline' of 'dif"),
    "trainer": (index(text_encoder=["transformers", "Trainer"]), "its text_encoder is 'Trainer' of 'transformers'"),
    "another part's class": (index(text_encoder=["diffusers", "AutoencoderKL"]), "its text_encoder is 'AutoencoderKL'"),
    "name": (index(vae=["diffusers", ["AutoencoderKL"]]), r"its vae is \['AutoencoderKL'\] of 'diffusers'"),
    "scheduler": (index(scheduler=["diffusers", "SchedulerMixin"]), "its scheduler is 'SchedulerMixin' of"),
    "foreign part": (index(judge=["transformers", "CLIPModel"]), "its judge is 'CLIPModel' of .*; remove judge"),
    "foreign pipeline": (index(_class_name="AudioLDMPipeline"), "pipeline class 'AudioLDMPipeline' is not served"),
    "own pipeline": (
        code("mine.py", index(_class_name=["mine", "Pipeline"])), r"\['mine', 'Pipeline'\], code that the folder brings"
    ),
    "custom pipeline": (code("pipeline.py", index(custom_pipeline="pipeline")), ""),
    "config of another class": (
        written("unet/config.json", _class_name="UNet3DConditionModel"),
        "unet/config.json: _class_name is 'UNet3DConditionModel', the pipeline needs 'UNet2DConditionModel'; take part",
    ),
    "config of another type": (
        written("text_encoder/config.json", model_type="t5"), "model_type is 't5', the pipeline needs 'clip_text_model'"
    ),
    "pickle": (pickled, "text_encoder: not a whole CLIPTextModel .*a .safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_runs_nothing_of_its_own(
    base: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one sentence, at the first call that reads it; nothing is asked, and no file of the folder runs."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on the terminal"))
    change, sentence = CASES[case]
    folder = shutil.copytree(base, tmp_path / "base")
    change(folder)
    if sentence:
        with pytest.raises(InputError, match=sentence) as refused:
            load_pipeline(folder)
        assert "\n" not in str(refused.value)
    else:
        load_pipeline(folder)
    with contextlib.suppress(InputError):
        LatentEncoder(folder, resolution=32).encode_prompts(["a dog"])
    assert not (folder / "ran").exists()


def test_every_class_of_the_list_is_there_and_every_family_is_on_it() -> None:
    for part, libraries in CLASSES.items():
        for library, names in libraries.items():
            for name in names:
                assert load_class(library, name, part=part, where="").__name__
    served = [name for each in FAMILIES for name in family(each).pipelines]
    assert sorted(served) == sorted(CLASSES["pipeline"]["diffusers"])
