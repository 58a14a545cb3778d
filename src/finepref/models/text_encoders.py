"""Text encoders that are trained with the denoiser: token ids go in, what the denoiser is told of the prompt comes out.

Shapes: N prompts, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from torch import Tensor, nn

from finepref.core.errors import ConfigError
from finepref.core.files import read_object
from finepref.models.dropout import Dropout
from finepref.models.family import Family
from finepref.models.lora import LoraSettings
from finepref.models.source import Source, load_part

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""CLIP's attention projections, as diffusers' own scripts train them (examples/text_to_image, LoRA of SDXL)."""
IDS = ":ids"


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoders:
    """The text encoders of a family by the names of their parts, each with its tokenizer."""

    kind: Family
    encoders: Mapping[str, Any]
    tokenizers: Mapping[str, Any]

    def tokens(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids [N,L] of every encoder as the pipeline has them: cut, filled up, learned words in all tokens."""
        found = {}
        for name, tokenizer in self.tokenizers.items():
            settings = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
            words = TextualInversionLoaderMixin().maybe_convert_prompt(list(prompts), tokenizer)
            made = tokenizer(words, max_length=tokenizer.model_max_length, **settings)
            found[f"{name}{IDS}"] = made.input_ids
        return found

    def embedded(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Conditions with prompt tensors in the place of token ids."""
        assert self.kind.embed is not None
        ids = {name: cond[f"{name}{IDS}"] for name in self.encoders}
        rest = {name: value for name, value in cond.items() if not name.endswith(IDS)}
        return {**rest, **self.kind.embed(self.encoders, ids)}

    def freeze_unread(self) -> None:
        """Leave layers alone that no gradient reaches, lest weight decay shrink their adapters."""
        for part, count in self.kind.unread.items():
            for name, module in self.encoders[part].named_modules() if part in self.encoders else ():
                if name.endswith("encoder.layers"):
                    module[-count:].requires_grad_(False)

    def train_mode(self, on: bool) -> None:
        """Whether their adapters drop inputs out; nothing else of them does, nor chooses kernels by its mode."""
        for encoder in self.encoders.values():
            for module in encoder.modules():
                if isinstance(module, Dropout):
                    module.train(on)

    def named(self) -> list[tuple[str, nn.Parameter]]:
        """Their parameters by part and name."""
        return [
            (f"{part}.{name}", parameter)
            for part, encoder in self.encoders.items()
            for name, parameter in encoder.named_parameters()
        ]


def lora_of(part: str, kind: Family, settings: LoraSettings) -> LoraSettings:
    """What a run asks for of one of the parts that it trains: `targets` speaks of the denoiser alone."""
    return settings if part == kind.part else settings.model_copy(update={"targets": None})


def load_text_encoders(source: Source, kind: Family, tokenizers: Mapping[str, Any]) -> TextEncoders:
    """The text encoders of a base, frozen; `tokenizers` by the names of their parts.

    Raises:
        ConfigError: text encoders that are not trained here.
    """
    check_trainable(source, kind)
    held = {encoder: tokenizer for tokenizer, encoder in kind.texts if source.has(encoder)}
    encoders = {name: load_part(source, name).requires_grad_(False) for name in held}
    return TextEncoders(kind, encoders, {name: tokenizers[tokenizer] for name, tokenizer in held.items()})


def check_trainable(source: Source, kind: Family) -> None:
    """Refuse text encoders that are not trained here, by the base's configs.

    Raises:
        ConfigError: those of another family, or one that masks tokens.
    """
    if kind.embed is None:
        what = f"the text encoders of {kind.name} are not trained here"
        raise ConfigError(what, where="lora.text_encoder", remedy="set it to false; those of sd15 and sdxl are")
    for _, name in kind.texts:
        if source.has(name) and read_object(source.folder / name / "config.json").get("use_attention_mask"):
            what = f"the {name} of this model masks tokens, and such a one is not trained here"
            raise ConfigError(what, where="lora.text_encoder", remedy="set it to false")
