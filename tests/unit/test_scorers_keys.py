"""Full-size official key sets map onto the modules with nothing missing, extra or misshaped (meta tensors)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel

from finepref.evaluate.scorers import blip, clip


def _grown(small: dict[str, list[int]], sizes: dict[int, int], layers: dict[str, int]) -> dict[str, Tensor]:
    """A small original key set at full size, on the meta device: dimensions replaced, block 0 repeated."""
    out: dict[str, Tensor] = {}
    for name, shape in small.items():
        full = tuple(sizes.get(n, n) for n in shape)
        for mark, count in layers.items():
            if name.startswith(mark + "0."):
                for layer in range(count):
                    key = name.replace(mark + "0.", f"{mark}{layer}.", 1)
                    out[key] = torch.empty(full, device="meta")
                break
            if name.startswith(mark):
                break
        else:
            out[name] = torch.empty(full, device="meta")
    return out


def _golden(file: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parents[1] / "goldens" / file).read_text())


def test_full_size_clip_maps_with_nothing_missing() -> None:
    """HPSv2's and CLIP-H's own key list grown to ViT-H-14, through the converter."""
    small = _golden("eval_clip_backbones.json")["cases"]["openclip_vith_style_gelu"]["shapes"]
    sizes = {80: 1280, 240: 3840, 320: 5120, 64: 1024, 192: 3072, 256: 4096, 48: 1024, 17: 257, 1000: 49408}
    state = _grown(small, sizes, {"visual.transformer.resblocks.": 32, "transformer.resblocks.": 24})
    assert len(state) == 686
    mapped = clip.from_open_clip(state)
    assert len(mapped) == 910
    assert sum(t.numel() for t in mapped.values()) == 986_109_441
    with torch.device("meta"):
        model = CLIPModel(clip.clip_config(clip.SHAPES["vit-h-14"]))
    assert {n: tuple(t.shape) for n, t in mapped.items()} == {n: tuple(t.shape) for n, t in model.state_dict().items()}


def test_full_size_openai_clip_maps_with_nothing_missing() -> None:
    """OpenAI's ViT-L/14: both towers are 128 wide in the golden file, so each side is grown by itself."""
    small = _golden("eval_clip_backbones.json")["cases"]["openai_vitl_style_quickgelu"]["shapes"]
    vision = {128: 1024, 384: 3072, 512: 4096, 48: 768, 17: 257}
    text = {128: 768, 384: 2304, 512: 3072, 48: 768, 1000: 49408}
    state = _grown(
        {k: s for k, s in small.items() if k.startswith("visual.")}, vision, {"visual.transformer.resblocks.": 24}
    )
    state |= _grown(
        {k: s for k, s in small.items() if not k.startswith("visual.")}, text, {"transformer.resblocks.": 12}
    )
    assert len(state) == 446
    mapped = clip.from_open_clip(state | {"input_resolution": torch.tensor(224), "attn_mask": torch.empty(77, 77)})
    assert len(mapped) == 590
    assert sum(t.numel() for t in mapped.values()) == 427_616_513
    with torch.device("meta"):
        model = CLIPModel(clip.clip_config(clip.SHAPES["vit-l-14"]))
    assert {n: tuple(t.shape) for n, t in mapped.items()} == {n: tuple(t.shape) for n, t in model.state_dict().items()}


def test_full_size_imagereward_maps_with_nothing_missing() -> None:
    """The original's key list grown to ViT-L/16 and BERT-base: 294 + 316 + 10, unused projections left out."""
    small = _golden("eval_imagereward_blip.json")["shapes"]
    vision = {64: 1024, 192: 3072, 256: 4096, 17: 197}
    text = {48: 768, 192: 3072, 64: 1024, 1000: 30524}
    sides = (
        ("blip.visual_encoder.", vision, {"blip.visual_encoder.blocks.": 24}),
        ("blip.text_encoder.", text, {"blip.text_encoder.encoder.layer.": 12}),
        ("mlp.", {48: 768}, {}),
    )
    state: dict[str, Tensor] = {}
    for prefix, sizes, layers in sides:
        state |= _grown({k: s for k, s in small.items() if k.startswith(prefix)}, sizes, layers)
    unused = {name: torch.empty(shape, device="meta") for name, shape in small.items() if "_proj." in name}
    unused = {n: t for n, t in unused.items() if n.startswith(("blip.vision_proj.", "blip.text_proj."))}
    assert len(unused) == 4
    position = {"blip.text_encoder.embeddings.position_ids": torch.empty(1, 512, device="meta")}
    mapped = blip.from_imagereward(state | unused | position)
    counts = [sum(n.startswith(side) for n in mapped) for side in ("vision.", "text.", "head.")]
    assert counts == [294, 316, 10]
    with torch.device("meta"):
        network = blip.RewardNetwork(blip.IMAGEREWARD)
    wanted = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    assert {n: tuple(t.shape) for n, t in mapped.items()} == wanted
    sizes = [sum(t.numel() for n, t in mapped.items() if n.startswith(side)) for side in ("vision.", "text.")]
    assert [round(size / 1e6, 1) for size in sizes] == [303.3, 142.0]
