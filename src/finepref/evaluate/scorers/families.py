"""The families of scorers on a network: what their weights are of, how they read prompts and rate images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPModel

from finepref.core.device import Precision
from finepref.evaluate.scorers import blip, clip, hub_files
from finepref.evaluate.scorers import tokenizer as tokens
from finepref.evaluate.scorers.heads import WIDTH, LinearHead
from finepref.evaluate.scorers.network_scorer import NetworkScorer, Rater, in_half
from finepref.evaluate.scorers.scorer_rows import SCORERS, ScorerRow, Spec, weights_path
from finepref.evaluate.scorers.weights import build, in_blocks, read_state, weights_id

CACHED_PROMPTS, TEXT_BATCH = 16384, 16


def cosine(weights: str, text: tokens.ClipText) -> Rater[CLIPModel]:
    """PickScore, HPSv2.0, HPSv2.1, CLIP scores: cos(image feature, text feature), in [-1, 1].

    PickScore's README prints `logit_scale * cosine`, the papers print the cosine or 100 times it; the score here is
    always the cosine. Each prompt is computed once (the latest 16384 are kept).

    Args:
        weights: SHA-256 of the weights. text: tokenizer.
    """
    kept: dict[str, Tensor] = {}

    def read(model: CLIPModel, prompts: Sequence[str]) -> Tensor:
        fresh = [p for p in dict.fromkeys(prompts) if p not in kept]
        ids = dict(zip(fresh, text.ids(fresh), strict=True)) if fresh else {}
        fresh.sort(key=lambda p: len(ids[p]))
        for start in range(0, len(fresh), TEXT_BATCH):
            some = fresh[start : start + TEXT_BATCH]
            kept.update(zip(some, clip.text_features(model, [ids[p] for p in some]).cpu(), strict=True))
        found = torch.stack([kept[p] for p in prompts])
        for prompt in list(kept)[: max(0, len(kept) - CACHED_PROMPTS)]:
            del kept[prompt]
        return found

    def rate(model: CLIPModel, pixels: Tensor, texts: Tensor) -> Tensor:
        return (clip.image_features(model, pixels).cpu() * texts).sum(dim=-1)

    identity = {"scorer": "clip-cosine", "weights": weights, "cleaned": text.cleaned, "merges": text.sha256}
    return Rater(identity, clip.takes, read, rate)


def reward(weights: str, text: tokens.BertText) -> Rater[blip.RewardNetwork]:
    """ImageReward-v1.0, about standard normal over the authors' data; prompts are cut at 35 BERT tokens.

    (head(text state of [CLS] that has seen the image) - 0.1672) / 1.0333

    Args:
        weights: SHA-256 of the weights. text: tokenizer.
    """

    def takes(network: blip.RewardNetwork) -> tuple[int, torch.device]:
        return network.side, next(network.parameters()).device

    def read(network: blip.RewardNetwork, prompts: Sequence[str]) -> list[list[int]]:
        return text.ids(prompts)

    def rate(network: blip.RewardNetwork, pixels: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        ids, mask = (part.to(pixels.device) for part in blip.pad_ids(texts, tokens.BERT_LENGTH))
        rewards: Tensor = network(pixels, ids, mask)
        return rewards

    return Rater({"scorer": "imagereward", "weights": weights, "vocabulary": text.sha256}, takes, read, rate)


def aesthetic(weights: Sequence[str]) -> Rater[tuple[CLIPModel, LinearHead]]:
    """LAION's aesthetic predictor v2: head(x / |x|), x OpenAI's CLIP ViT-L/14 image feature, about 1 to 10.

    Prompts are not looked at. The head has no activations, so the score is 5.2366 + w.x with |w| = 17.9956.

    Args:
        weights: SHA-256 of the backbone and of the head.
    """
    return Rater(
        {"scorer": "aesthetic", "weights": list(weights)},
        takes=lambda networks: clip.takes(networks[0]),
        read=lambda networks, prompts: prompts,
        rate=lambda networks, pixels, texts: in_blocks(networks[1], clip.image_features(networks[0], pixels)),
    )


@dataclass(frozen=True, slots=True)
class ScorerFamily:
    """How files of a family are laid out, and what rates with them.

    network: (row, its local weights, None for the published ones) -> the module that the tensors are for. mapped:
    official or final names -> final names, unused tensors left out. towers: what of it may run in half precision.
    vocabulary: sets of files that make a tokenizer, the hub has the first. text: (file or folder, row) -> its
    tokenizer. rater: (SHA-256 of the weights, tokenizer).
    """

    network: Callable[[ScorerRow, Path | None], nn.Module]
    mapped: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    towers: Callable[[Any], tuple[nn.Module, ...]] = lambda network: ()
    vocabulary: tuple[tuple[str, ...], ...] = ()
    text: Callable[[Path, ScorerRow], Any] = lambda path, row: None
    rater: Callable[[str, Any], Rater[Any]] | None = None


FAMILIES = {
    "clip": ScorerFamily(
        network=lambda row, path: CLIPModel(clip.config_of(path, row.shape)),
        mapped=clip.from_open_clip,
        towers=lambda network: (network.vision_model, network.text_model),
        vocabulary=(tokens.CLIP_NAMES, (tokens.BPE_NAME,)),
        text=lambda path, row: tokens.clip_text(path, cleaned=row.cleaned),
        rater=cosine,
    ),
    "imagereward": ScorerFamily(
        network=lambda row, path: blip.RewardNetwork(blip.IMAGEREWARD),
        mapped=blip.from_imagereward,
        towers=lambda network: (network.vision, network.text),
        vocabulary=((tokens.BERT_NAME,),),
        text=lambda path, row: tokens.bert_text(path),
        rater=reward,
    ),
    "aesthetic": ScorerFamily(network=lambda row, path: LinearHead(WIDTH), mapped=dict),
}


def load_network(row: ScorerRow, path: Path, device: str, precision: Precision = "no") -> Any:
    """The network of a row from an official file, a converted folder, or a folder in transformers' layout.

    Raises:
        InputError: missing, damaged, or of another architecture.
    """
    family = FAMILIES[str(row.family)]
    state = family.mapped(read_state(path))
    network = build(lambda: family.network(row, path), state, where=path, device=device)
    in_half(family.towers(network), device, precision)
    return network


def make_scorer(chosen: Spec, device: str, precision: Precision = "no") -> NetworkScorer[Any]:
    """The scorer of a spec on a network: weights are hashed now and loaded when the first image comes."""
    row, path, family = chosen.kind, weights_path(chosen), FAMILIES[str(chosen.kind.family)]
    beside = path if path.is_dir() else path.parent
    variant, how = chosen.preprocess or row.preprocess, (device, precision)
    if family.rater is not None:
        rater = family.rater(weights_id(path), family.text(_vocabulary(chosen, family, beside), row))
        load = lambda: load_network(row, path, *how)  # noqa: E731
        return NetworkScorer(chosen.name, rater, load, variant, precision=precision)
    backbone = beside / "backbone"
    if chosen.path is None or not backbone.is_dir():
        backbone = hub_files.fetch(hub_files.hub_file("clip_l"), scorer=row.name)
    return NetworkScorer(
        chosen.name,
        aesthetic((weights_id(backbone), weights_id(path))),
        lambda: (load_network(SCORERS["clip-l"], backbone, *how), load_network(row, path, *how)),
        variant,
        precision=precision,
    )


def _vocabulary(chosen: Spec, family: ScorerFamily, beside: Path) -> Path:
    """The folder of a tokenizer's files: beside local weights where they are, else from the hub."""
    if chosen.path is not None and tokens.has_files(beside, family.vocabulary):
        return beside
    hub = [hub_files.hub_file(chosen.kind.vocabulary, name) for name in family.vocabulary[0]]
    return [hub_files.fetch(file, scorer=chosen.kind.name) for file in hub][-1].parent
