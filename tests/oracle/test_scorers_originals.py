"""Against code we did not write: OpenAI's CLIP files, transformers' image processor, the trueskill package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trueskill
from PIL import Image
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from finepref.arena.freeforall import rank_game
from finepref.arena.online import get_preset
from finepref.core.files import read_json
from finepref.evaluate.scorers import clip
from finepref.evaluate.scorers.clip import ClipShape, Tower
from finepref.evaluate.scorers.preprocess import pixels
from finepref.evaluate.scorers.tokenizer import bert_text, clip_text
from finepref.evaluate.scorers.weights import build
from published_files import bert_vocabulary, clip_bpe, original
from tiny_scorers import draw, picture
from tolerance import DOUBLE


@pytest.mark.parametrize(("vision", "text"), [((2, 64), (2, 64)), ((1, 128), (3, 64)), ((3, 64), (1, 128))])
def test_openai_clip_runs_the_same_on_our_modules(
    vision: tuple[int, int], text: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other depths and widths than the golden file's, both in float64 (the original narrows its norms to float32)."""
    code = original("model")
    monkeypatch.setattr(code.LayerNorm, "forward", torch.nn.LayerNorm.forward)
    theirs = code.CLIP(32, 42, vision[0], vision[1], 14, 77, 300, text[1], text[1] // 64, text[0]).float()
    with torch.no_grad():
        for number, parameter in enumerate(theirs.parameters()):
            fan = float(np.prod(parameter.shape[1:])) if parameter.ndim > 1 else 4.0
            parameter.copy_(draw(tuple(parameter.shape), number) * fan**-0.5)
    shape = ClipShape(
        32,
        Tower(vision[0], vision[1], vision[1] // 64, 4 * vision[1]),
        Tower(text[0], text[1], text[1] // 64, 4 * text[1]),
        "quick_gelu",
        image=42,
        vocab=300,
        end=299,
    )
    state, config = clip.from_open_clip(theirs.state_dict()), clip.clip_config(shape)
    ours = build(lambda: CLIPModel(config), state, where="original", device="cpu").double()
    theirs = theirs.double().eval()
    images = draw((4, 3, 42, 42), 7).double()
    rows = [[298, *range(5, 5 + length), 299] for length in (0, 3, 40, 75)]
    padded = torch.tensor([row + [0] * (77 - len(row)) for row in rows])
    with torch.inference_mode():
        image = torch.nn.functional.normalize(theirs.encode_image(images), dim=-1)
        prompt = torch.nn.functional.normalize(theirs.encode_text(padded), dim=-1)
        found = clip.text_features(ours, rows) @ clip.image_features(ours, images).T
    assert (prompt @ image.T).abs().max() > 0.01
    torch.testing.assert_close(found, prompt @ image.T, rtol=0, atol=DOUBLE)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return original("simple_tokenizer").SimpleTokenizer()


def test_every_evaluation_prompt_tokenises_as_openai_does(tokenizer: Any, shared: Path) -> None:
    """And the audit of the research: how many differ without cleaning, how many fill 77 and 35 positions."""
    bpe = clip_bpe()
    assert bpe is not None
    cleaned, raw = clip_text(bpe, cleaned=True), clip_text(bpe, cleaned=False)
    bert = bert_vocabulary()
    audit = read_json(Path(__file__).parents[1] / "goldens" / "eval_tokenizers.json")["prompt_set_audit"]
    for name, known in audit.items():
        prompts = [row["prompt"] for row in read_json(shared / "prompts" / name)]
        assert len(prompts) == known["n"]
        ours, theirs = cleaned.ids(prompts), raw.ids(prompts)
        for prompt, ids in zip(prompts, ours, strict=True):
            wanted = [49406, *tokenizer.encode(prompt), 49407]
            assert ids == (wanted if len(wanted) <= 77 else [*wanted[:76], 49407]), prompt
        assert sum(a != b for a, b in zip(ours, theirs, strict=True)) == known["clip_raw_vs_cleaned_mismatch"]
        assert sum(len(ids) == 77 for ids in theirs) == known["clip_full_77"]
        if bert is not None:
            assert sum(len(ids) == 35 for ids in bert_text(bert).ids(prompts)) == known["bert_full_35"]


def test_pil_floor_is_transformers_processor_bit_by_bit() -> None:
    processor = CLIPImageProcessorPil()
    sizes = [(512, 512), (640, 427), (427, 641), (227, 224), (100, 80), (224, 224), (33, 500), (1, 1), (225, 231)]
    for number, (width, height) in enumerate(sizes):
        image = picture(width, height, number)
        theirs = processor(image, return_tensors="pt").pixel_values[0]
        assert torch.equal(pixels(image, "pil_floor"), theirs), (width, height)


def test_tensor_resize_is_a_plain_interpolation_of_the_long_side() -> None:
    """HPSv2's transform on a size where no rounding is involved: 448 x 224 -> 224 x 112, padded by 56."""
    image = picture(448, 224)
    plain = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None] / 255
    for variant, antialias in (("tensor_aa", True), ("tensor_noaa", False)):
        wanted = torch.nn.functional.interpolate(plain, size=(112, 224), mode="bicubic", antialias=antialias)[0]
        found = pixels(image, variant)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
        assert torch.equal(found[:, 56:168], (wanted - mean) / std)


def test_a_game_of_ksort_eval_is_the_packages() -> None:
    """200 games of 2 to 6 players: 1e-10 with the package's scipy backend, taken to convergence."""
    preset = get_preset("ksort")
    environment = trueskill.TrueSkill(backend="scipy")
    generator = np.random.Generator(np.random.Philox(5))
    for _ in range(200):
        count = int(generator.integers(2, 7))
        mu, sigma = generator.normal(25, 4, count).tolist(), generator.uniform(0.5, 8, count).tolist()
        ranks = generator.permutation(count).tolist()
        groups = [(environment.create_rating(m, s),) for m, s in zip(mu, sigma, strict=True)]
        theirs = environment.rate(groups, ranks, min_delta=1e-9)
        means, variances = rank_game(mu, [s * s + preset.tau**2 for s in sigma], ranks, draw_margin=preset.draw_margin)
        np.testing.assert_allclose(means, [rating.mu for (rating,) in theirs], rtol=0, atol=1e-10)
        np.testing.assert_allclose(np.sqrt(variances), [rating.sigma for (rating,) in theirs], rtol=0, atol=1e-10)


def test_the_synthetic_image_mode_does_not_matter_to_the_processor() -> None:
    """Grey and palette images go through RGB first, as the published scorers do."""
    for mode in ("L", "P", "RGBA"):
        image = picture(300, 200, mode=mode)
        theirs = CLIPImageProcessorPil()(image.convert("RGB"), return_tensors="pt").pixel_values[0]
        assert torch.equal(pixels(image, "pil_floor"), theirs)
    assert isinstance(picture(), Image.Image)
