"""LoRA files for ComfyUI and kohya's trainers: names and scales against diffusers' own readers, and pictures.

Plain diffusers reads most of these files itself, but not SD3's, and kohya's FLUX at a width of 3072 alone: there the
names are checked against its reader of published weights, and pictures by the arithmetic that the tools do.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from finepref.core.errors import InputError
from finepref.models import lora, lora_names
from finepref.models.export import export
from finepref.models.load import load_adapter, load_pipeline
from finepref.models.original import pieces
from finepref.models.source import empty_part, locate, pipeline_class
from tiny import picture

FORMATS = ("kohya", "comfyui")
RUNS: dict[str, dict[str, Any]] = {  # of rank 4 and alpha 16, where nothing else is said
    "patterns": {"rank_pattern": {"to_q": 2, "to_k": 8}, "alpha_pattern": {"to_q": 1, "to_v": 32}},
    "rslora": {"use_rslora": True},
    "layers": {"target_modules": ["conv1", "conv_in", "ff.net.2", "proj_in", "time_emb_proj", "linear_1", "linear_2"]},
    "dora": {"use_dora": True},
}
CASES = [
    *((name, format, "patterns") for name in lora_names.FAMILIES for format in FORMATS),
    *(("sd15", "comfyui", "rslora"), ("flux", "comfyui", "rslora"), ("flux", "kohya", "rslora")),
    ("sdxl", "kohya", "layers"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """(family, run) -> (base folder, run folder, its picture), the LoRA made by peft."""
    from peft import LoraConfig

    bases: dict[str, Path] = {}
    pictures: dict[Path, Tensor] = {}

    def get(name: str, kind: str) -> tuple[Path, Path, Tensor]:
        if name not in bases:
            bases[name] = tiny.BUILDERS[name](tmp_path_factory.mktemp(name) / "base")
        base = bases[name]
        run = base.parent / kind
        if not run.exists():
            adapter = load_adapter(base, reference=False)
            made = {"r": 4, "lora_alpha": 16, "target_modules": list(adapter.kind.lora_targets), **RUNS[kind]}
            adapter.network.add_adapter(LoraConfig(**made), adapter_name=lora.POLICY)
            drawn = torch.Generator().manual_seed(0)
            for parameter in lora.state(adapter.network)[0].values():
                parameter.add_(torch.randn(parameter.shape, generator=drawn), alpha=0.1)
            run.mkdir()
            lora.saving(pipeline_class(locate(base)), {adapter.kind.part: adapter.network})(run)
            pictures[run] = picture(load_pipeline(base, run))
            assert (pictures[run] - picture(load_pipeline(base))).abs().max() > 1e-3
        return base, run, pictures[run]

    return get


def plain(base: Path) -> Any:
    """The base in plain diffusers."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def changes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The change of a weight for every module of a file, as ComfyUI and kohya's trainers compute it."""
    found: dict[str, Tensor] = {}
    used = set()
    for alpha in (name for name in tensors if name.endswith(".alpha")):
        module = alpha.removesuffix(".alpha")
        ends = ("lora_down", "lora_up") if f"{module}.lora_down.weight" in tensors else ("lora_A", "lora_B")
        down, up = (f"{module}.{end}.weight" for end in ends)
        rank = tensors[down].shape[0]
        found[module] = (tensors[alpha].item() / rank) * (tensors[up].flatten(1) @ tensors[down].flatten(1))
        used |= {alpha, down, up}
    assert used == set(tensors)
    return found


def merge(network: Any, tensors: dict[str, Tensor], known: lora_names.ModuleNames) -> None:
    """Add a file's changes to the weights of diffusers, where the published weight is theirs one below the other."""
    names = layers(network)
    weights = {f"{known.comfyui}.{name}": [name] for name in names}
    if isinstance(known.published, dict):
        weights |= {f"lora_unet_{name.replace('.', '_')}": [name] for name in names}
        weights |= {f"lora_unet_label_emb_0_{2 * i}": [f"add_embedding.linear_{i + 1}"] for i in (0, 1)}
    else:
        held = pieces(known.published(network.config, names), [f"{name}.weight" for name in names])
        for place, piece in held.items():
            parts = [part.removesuffix(".weight") for part in piece.parts]
            weights[f"lora_unet_{place.removesuffix('.weight').replace('.', '_')}"] = parts
    for name, change in changes(tensors).items():
        held = [network.get_submodule(each).weight for each in weights[name]]
        for weight, part in zip(held, change.split([len(weight) for weight in held]), strict=True):
            weight.data.add_(part.view_as(weight))


def layers(network: nn.Module) -> list[str]:
    """The linear layers and convolutions."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize(("name", "format", "kind"), CASES)
def test_pictures(world, tmp_path: Path, name: str, format: str, kind: str) -> None:
    """Equal in plain diffusers to the last bit: every scale is a power of two; 1e-4 where a product is merged."""
    base, run, wanted = world(name, kind)
    file = export(run, base, tmp_path / "mine.safetensors", format=format)
    pipe = plain(base)
    if name != "sd3" and (name, format) != ("flux", "kohya"):
        pipe.load_lora_weights(str(file))
        assert torch.equal(picture(pipe), wanted)
        pipe.unload_lora_weights()
    merge(getattr(pipe, "unet", None) or pipe.transformer, load_file(file), lora_names.FAMILIES[name])
    assert (picture(pipe) - wanted).abs().max() < 1e-4
    with safe_open(str(file), framework="pt") as handle:
        said = {key: value for key, value in handle.metadata().items() if key.startswith("ss_network")}
    alpha = "32.0" if kind == "rslora" else "16.0"
    assert said.get("ss_network_alpha") == (alpha if format == "kohya" else None)
    assert said.get("ss_network_dim") == ("4" if format == "kohya" else None)


class Published(dict[str, Tensor]):
    """A published checkpoint for diffusers' converters: a file's changes under their flat names, zero elsewhere."""

    def __init__(self, flat: dict[str, Tensor], seen: tuple[str, ...]) -> None:
        super().__init__({name: torch.zeros(6, 1) for name in seen})
        self.flat = flat

    def pop(self, name: str, *default: Any) -> Tensor:
        flat = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
        if name.endswith(".weight") and flat in self.flat:
            return self.flat.pop(flat)
        return torch.zeros(21504 if "linear1" in name else 6, 1)


@pytest.mark.parametrize("only", ["", "attn.to_"])
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_kohya_names_are_those_of_the_published_weights(name: str, only: str) -> None:
    """The oracle is diffusers' converter of a published checkpoint, and its reader of kohya's FLUX."""
    from diffusers import FluxPipeline
    from diffusers.loaders import single_file_utils

    with torch.device("meta"):
        network = NETWORKS[name]()
    names = [each for each in layers(network) if only in each]
    drawn = torch.Generator().manual_seed(0)
    found: dict[str, lora_names.Pair] = {}
    for each in names:
        rank, rows = (3 if each.endswith("to_q") else 2), len(network.get_submodule(each).weight)
        down, up = (torch.randn(shape, generator=drawn) for shape in ((rank, 1), (rows, rank)))
        found[each] = lora_names.Pair(down, up, 4.0 if each.endswith("to_k") else 2.0)
    wanted = {f"{each}.weight": pair.scale * (pair.up @ pair.down) for each, pair in found.items()}
    tensors = lora_names.named("kohya", name, found, network)
    seen = ("context_embedder.weight", "guidance_in.x", *(f"{block}.{i}.attn2.x" for block in BLOCKS for i in (0, 1)))
    checkpoint = Published(changes(tensors), seen)
    convert = getattr(single_file_utils, f"convert_{name}_transformer_checkpoint_to_diffusers")
    read = convert(checkpoint)
    assert not checkpoint.flat
    for each, value in read.items():
        torch.testing.assert_close(value, wanted.pop(each, torch.zeros_like(value)))
    assert not wanted
    if name == "flux":
        inside = {key: value for key, value in tensors.items() if "_blocks_" in key}
        read = FluxPipeline.lora_state_dict(inside)
        for each in (each for each in names if "transformer_blocks." in each and each in found):
            pair = (read[f"transformer.{each}.lora_{side}.weight"] for side in "BA")
            torch.testing.assert_close(torch.matmul(*pair), found[each].scale * (found[each].up @ found[each].down))


BLOCKS = ("joint_blocks", "double_blocks", "single_blocks")


NETWORKS = {
    "sd3": lambda: SD3Transformer2DModel(num_layers=2, dual_attention_layers=(0, 1)),
    "flux": lambda: FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True),  # its true width
}


@pytest.mark.parametrize("name", ["sd15", "sdxl", "qwen_image"])
def test_every_layer_that_diffusers_shares_with_the_tool_has_a_name(world, name: str) -> None:
    """ComfyUI's table of UNets, and its own network of Qwen-Image, hold every linear layer and convolution."""
    base, *_ = world(name, "patterns")
    source = locate(base)
    network = empty_part(source, "transformer" if name == "qwen_image" else "unet")
    pair = lora_names.Pair(torch.ones(1, 1), torch.ones(1, 1), 1.0)
    names = layers(network)
    assert len(lora_names.named("kohya", name, dict.fromkeys(names, pair), network)) == 3 * len(names)


def test_refusals(world, tmp_path: Path) -> None:
    base, run, _ = world("sana", "rslora")
    for format, tool in lora_names.TOOLS.items():
        message = f"format: {tool} has no sana model, or its names are not known here; use --format diffusers or merged"
        with pytest.raises(InputError, match=re.escape(message)):
            export(run, base, tmp_path / "x", format=format)
    base, biased, _ = world("flux", "patterns")
    add_bias(biased, tmp_path / "biased")
    for run, message in {
        world("flux", "dora")[1]: "lora.dora: ComfyUI would divide its magnitudes (DoRA) by the norms of other weights",
        tmp_path / "biased": "to_q has other tensors than the pair lora_A.weight and lora_B.weight",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)):
            export(run, base, tmp_path / "x", format="comfyui")
    strange = dict.fromkeys(["down_blocks.0.motion.proj"], lora_names.Pair(torch.ones(1, 1), torch.ones(1, 1), 1.0))
    with pytest.raises(
        InputError, match=r"lora\.targets: ComfyUI has no name for the module down_blocks\.0\.motion\.proj"
    ):
        lora_names.named("comfyui", "sd15", strange, nn.Linear(1, 1))
    _, run, _ = world("sd15", "patterns")
    other, *_ = world("sdxl", "patterns")
    with pytest.raises(InputError, match=r"its module \S+ does not fit the unet of \S+; give the base of the run"):
        export(run, other, tmp_path / "x", format="kohya")
    assert not (tmp_path / "x").exists()


def add_bias(run: Path, out: Path) -> None:
    """The run with a bias beside one pair."""
    tensors = load_file(run / lora.FILE)
    with safe_open(str(run / lora.FILE), framework="pt") as handle:
        metadata = {k: v for k, v in handle.metadata().items() if k != "finepref_sha256"}
    out.mkdir()
    bias = {"transformer.transformer_blocks.0.attn.to_q.lora_B.bias": torch.zeros(32)}
    save_file({**tensors, **bias}, out / lora.FILE, metadata)
