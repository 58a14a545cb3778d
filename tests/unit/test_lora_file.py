"""Anybody's LoRA file: the weights that it makes, in closed form, and the sentence for what would not be used."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lora_files as made
import tiny
from finepref.core.errors import ConfigError, InputError
from finepref.models.family import family_of
from finepref.models.load import load_adapter, load_part
from finepref.models.lora import LoraSettings
from finepref.models.source import locate
from finepref.models.start import check_start

TARGETS = ("to_q", "to_out.0", "proj_in")
HEADER = "lora_adapter_metadata"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sd15(tmp_path_factory.mktemp("lora-file") / "base")


@pytest.fixture(scope="module")
def weights(base: Path) -> made.Tensors:
    return made.adapter(load_part(locate(base), "unet"), TARGETS)


def test_each_module_has_its_own_rank_and_alpha(base: Path, weights: made.Tensors, tmp_path: Path) -> None:
    """kohya: W + alpha / rank B A by module, an alpha that is absent being the rank, as sd-scripts has it."""
    modules = sorted({name.rsplit(".lora_", 1)[0] for name in weights})
    tensors, scale = {}, {}
    for number, module in enumerate(modules):
        rank, alpha = 2 + 2 * (number % 2), (1.0, 3.0, None)[number % 3]
        down, up = weights[f"{module}.lora_A.weight"][:rank], weights[f"{module}.lora_B.weight"][:, :rank]
        pair = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        tensors |= made.kohya(pair, "lora_unet", alpha)
        scale[module] = (1.0 if alpha is None else alpha / rank) * (up.flatten(1).double() @ down.flatten(1).double())
    file = made.write(tmp_path / "a.safetensors", tensors)
    plain = load_part(locate(base), "unet")
    network = load_adapter(base, init_from=file, reference=False).network
    for module in modules:
        before, after = (each.get_submodule(module).weight.detach().double() for each in (plain, network))
        torch.testing.assert_close(after, before + scale[module].view(before.shape), rtol=0, atol=2e-7)
    asked = LoraSettings(rank=2, alpha=1.0)
    low = load_adapter(base, init_from=file, reference=False, lora=asked)  # trained as it is
    low.saving()(tmp_path / "run")
    again = load_adapter(base, init_from=tmp_path / "run", reference=False).network
    for module in modules:
        assert torch.equal(again.get_submodule(module).weight, network.get_submodule(module).weight)
    with pytest.raises(
        ConfigError, match=r"lora\.targets: 8 modules have these names, the LoRA .* has 20 \(.* differs"
    ):
        load_adapter(base, init_from=file, lora=asked.model_copy(update={"targets": ["to_q"]}))


def _changed(name: str, value: torch.Tensor | None) -> Callable[[made.Tensors], made.Tensors]:
    return lambda tensors: {key: each for key, each in {**tensors, name: value}.items() if each is not None}


Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
K = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
REFUSED = {
    "a half is missing": (_changed(f"unet.{Q}.lora_B.weight", None), f"{Q}.lora_B.weight is missing"),
    "another width": (_changed(f"unet.{Q}.lora_A.weight", torch.ones(4, 99)), r"holds \(4, 99\) and \(64, 4\), its"),
    "a part of another rank": (_changed(f"unet.{Q}.lora_A.weight", torch.ones(3, 64)), r"holds \(3, 64\) and"),
    "a norm": (
        lambda tensors: tensors | {f"unet.conv_norm_out.lora_{side}.weight": torch.ones(2, 2) for side in "AB"},
        "conv_norm_out is a GroupNorm, which takes no LoRA",
    ),
    "a stray tensor": (_changed("unet.conv_in.diff", torch.ones(2)), "1 of its 41 tensors are no weights of a LoRA"),
    "an embedding": (_changed("clip_l", torch.ones(2, 8)), "are no weights of a LoRA"),
    "another part": (_changed(f"controlnet.{Q}.lora_A.weight", torch.ones(4, 64)), "of modules that the unet does"),
    **{f"{dtype}": (_changed(f"unet.{Q}.lora_A.weight", torch.ones(4, 64).to(dtype)),
                    rf"unet.{Q}.lora_A.weight holds {name}, and weights are floats; give the float weights")
       for dtype, name in ((torch.int8, "I8"), (torch.bool, "BOOL"), (torch.complex64, "C64"))},
    "a number": (_changed(f"unet.{Q}.lora_A.weight", torch.full((4, 64), torch.inf)), "numbers that are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_not_be_used_is_named(base: Path, weights: made.Tensors, tmp_path: Path, what: str) -> None:
    change, said = REFUSED[what]
    with pytest.raises(InputError, match=said):
        load_adapter(base, init_from=made.write(tmp_path / "a.safetensors", change(made.under("unet", weights))))


def test_float8_is_read_as_the_numbers_that_it_holds(base: Path, weights: made.Tensors, tmp_path: Path) -> None:
    """Cast by peft at the end as any other; diffusers cannot add two of them. An alpha may be a whole number."""
    small = {name: value.to(torch.float8_e4m3fn) for name, value in made.kohya(weights, "lora_unet").items()}
    files = (
        made.write(tmp_path / "small.safetensors", small),
        made.write(tmp_path / "same.safetensors", {name: value.float() for name, value in small.items()}),
        made.write(tmp_path / "whole.safetensors",
                   {n: v.to(torch.int32) if n.endswith(".alpha") else v.float() for n, v in small.items()}),
    )  # fmt: skip
    found, *others = (load_adapter(base, init_from=file, reference=False).network.state_dict() for file in files)
    for other in others:
        assert all(torch.equal(found[name], value) for name, value in other.items())


def test_the_names_of_comfyui_are_those_of_the_published_network(
    base: Path, weights: made.Tensors, tmp_path: Path
) -> None:
    """`diffusion_model.input_blocks.1.1...`, which diffusers does not read: the same numbers as under kohya's names."""
    comfy = made.comfy(made.renamed(weights, made.original))
    peft = {key.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): value for key, value in comfy.items()}
    held = [made.write(tmp_path / f"{number}.safetensors", tensors)
            for number, tensors in enumerate((made.kohya(weights, "lora_unet"), comfy, peft))]  # fmt: skip
    expected, *found = (load_adapter(base, init_from=file, reference=False).network.state_dict() for file in held)
    for each in found:
        assert all(torch.equal(each[key], value) for key, value in expected.items())
    stray = {"diffusion_model.input_blocks.99.1.to_q.lora_down.weight": torch.ones(4, 4)}
    with pytest.raises(
        InputError, match=r"1 of its \d+ tensors are of modules that the unet does not have \(diffusion_m"
    ):
        load_adapter(base, init_from=made.write(tmp_path / "a.safetensors", comfy | stray))
    with pytest.raises(InputError, match="are there twice, also as lora_unet_"):
        load_adapter(base, init_from=made.write(tmp_path / "a.safetensors", comfy | peft))


@pytest.mark.parametrize("word", ["v", "v_prediction", "velocity", "something"])
def test_what_a_header_says_of_the_prediction(base: Path, weights: made.Tensors, tmp_path: Path, word: str) -> None:
    spec = {"modelspec.prediction_type": word}
    file = made.write(tmp_path / "a.safetensors", made.under("unet", weights), **spec)
    said = "the prediction type 'something' is not known; correct that word" if word == "something" else (
        "it was trained for v_prediction, the base predicts epsilon"
    )  # fmt: skip
    source = locate(base)
    with pytest.raises(InputError, match=said):
        check_start(source, family_of(source), file, None)
    shutil.copytree(base / "unet", tmp_path / "unet")
    weights_file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    made.write(weights_file, load_file(weights_file), **spec)
    with pytest.raises(InputError, match=said):
        check_start(source, family_of(source), tmp_path / "unet", None)


OTHERS = {
    "BOFT": (
        {"base_model.model.x.boft_R": torch.ones(3)},
        "1 of its 1 tensors are no weights of a LoRA .* give a plain",
    ),
    "OFT": ({f"base_model.model.{Q}.oft_R.weight": torch.ones(3)}, "are no weights of a LoRA"),
    "IA3": ({f"base_model.model.{Q}.ia3_l": torch.ones(3)}, "are no weights of a LoRA"),
    "nothing": ({}, "it holds no tensors; fetch it again"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_an_adapter_of_another_kind_is_not_taken_for_a_network(base: Path, tmp_path: Path, what: str) -> None:
    tensors, said = OTHERS[what]
    with pytest.raises(InputError, match=said):
        load_adapter(base, init_from=made.write(tmp_path / "a.safetensors", tensors))


KOHYA = {
    "DoRA": (_changed(f"{K}.dora_scale", torch.ones(64)), "are no weights of a LoRA"),
    "LyCORIS": (_changed(f"{K}.hada_w1_a", torch.ones(4, 64)), "are no weights of a LoRA"),
    "an alpha alone": (_changed("lora_unet_conv_out.alpha", torch.tensor(4.0)), "conv_out"),
    "both names of a UNet": (
        lambda tensors: (
            tensors | made.kohya({f"input_blocks.1.1.lora_{side}.": torch.ones(4, 4) for side in "AB"}, "lora_unet")
        ),
        r"3 of its 63 tensors are not read by diffusers \(lora_unet_input_blocks_1_1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", KOHYA)
def test_what_diffusers_drops_of_a_kohya_file_is_named(
    base: Path, weights: made.Tensors, tmp_path: Path, what: str
) -> None:
    change, said = KOHYA[what]
    with pytest.raises(InputError, match=said):
        load_adapter(base, init_from=made.write(tmp_path / "a.safetensors", change(made.kohya(weights, "lora_unet"))))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"unet.r": 8, "unet.lora_alpha": 8}, r"has shape \(4, .*\), and by the file's metadata \(8, "),
        ({"unet.r": 4}, "no rank and alpha of the unet in its header"),
        *(
            ({"unet.r": 4, "unet.lora_alpha": 8, **about}, said)
            for about, said in (
                ({"unet.lora_alpha": math.inf}, "its metadata sets lora_alpha to inf, which is not a number above 0"),
                (
                    {"unet.alpha_pattern": {"to_q": math.nan}},
                    r"sets alpha_pattern to {'to_q': nan}, which is not a num",
                ),
                ({"unet.r": 4.5}, r"its metadata sets r to 4\.5, which is not a whole number above 0"),
                ({"unet.use_rslora": "no"}, "its metadata sets use_rslora to 'no', which is not true or false"),
                ({"unet.use_dora": 1}, "its metadata sets use_dora to 1, which is not true or false"),
            )
        ),
        (
            {"unet.r": 4, "unet.lora_alpha": 8, "unet.use_qalora": True},
            "its metadata sets use_qalora, which is not read",
        ),
        ({"unet.r": 4, "unet.lora_alpha": 8, "unet.init_lora_weights": "pissa"}, "its metadata sets init_lora_weights"),
        ([], "its adapter metadata is no record"),
    ],
)
def test_metadata_that_contradicts_the_tensors(base: Path, weights: made.Tensors, tmp_path: Path, about, said) -> None:
    header = {HEADER: json.dumps(about)}
    with pytest.raises(InputError, match=said):
        load_adapter(base, init_from=made.write(tmp_path / "a.safetensors", made.under("unet", weights), **header))


def test_a_file_of_any_name_or_the_only_one_of_a_folder(base: Path, weights: made.Tensors, tmp_path: Path) -> None:
    one = made.write(tmp_path / "one" / "Anybody's v1.safetensors", made.under("unet", weights))
    expected = load_adapter(base, init_from=one, reference=False).network.state_dict()
    held = load_adapter(base, init_from=one.parent, reference=False).network.state_dict()
    assert all(torch.equal(held[name], value) for name, value in expected.items())
    shutil.copy(one, one.with_name("v2.safetensors"))
    with pytest.raises(
        InputError, match=r"holds 2 \.safetensors files: Anybody's v1\.safetensors, v2\.safetensors; name"
    ):
        load_adapter(base, init_from=one.parent)
    torch.save({}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: not a \.safetensors file; convert it"):
        load_adapter(base, init_from=tmp_path / "a.pt")
