"""What the stages around training hold in memory: encoding images and prompts, drawing pictures. Estimates.

Text encoders' activations are left out.
"""

from __future__ import annotations

from collections.abc import Callable

from finepref.models.quantized import BYTES as QUANTIZED
from finepref.plan.cards import Gpu
from finepref.plan.fit import halvings
from finepref.plan.needs import GB, Counts, StageMemory, needed_gb
from finepref.train.config import RunConfig

PICTURES = 8
"""Images that `finepref generate` draws at once."""
STEPS = 50
"""Its sampling steps, where nothing else is said."""


def caching(config: RunConfig, counts: Counts, *, batch: int | None = None) -> StageMemory:
    """Encoding images and prompts. batch: images at once, `cache.batch_size` where None.

    The VAE has full-precision weights and runs under autocast; text encoders are loaded in half.
    """
    batch, half = batch or config.cache.batch_size, config.cache.mixed_precision != "no"
    size = 2.0 if half else 4.0
    texts, largest = size * counts.text_parameters, size * counts.largest_text
    vae = 4.0 * (counts.vae_parameters + counts.decoder_parameters)
    vae += batch * counts.encoder_bytes * (0.5 if half else 1.0)
    return StageMemory(batch=batch, together_gb=(vae + texts) / GB, apart_gb=max(vae, largest) / GB)


def drawing(config: RunConfig, counts: Counts, *, batch: int = PICTURES) -> StageMemory:
    """Drawing pictures with guidance, in the precision and quantisation of training; decoded `batch` at once."""
    half = config.train.mixed_precision != "no"
    size, copies = 2.0 if half else 4.0, 2.0 * counts.castable if half and config.lora is None else 0.0
    calling = 2 * batch * max(0.0, counts.forward_bytes - copies)  # with and without the prompt
    denoiser = size * counts.parameters
    if config.model.quantize is not None:
        denoiser -= counts.linear * (size - QUANTIZED[config.model.quantize])
    decoder = size * (counts.vae_parameters + counts.decoder_parameters)
    working = batch * counts.decoder_bytes * (0.5 if half else 1.0)
    texts = size * counts.text_parameters
    held = denoiser + decoder + texts + max(calling, working)
    apart = max(denoiser + calling, decoder + working, size * counts.largest_text)
    return StageMemory(batch=batch, together_gb=held / GB, apart_gb=apart / GB)


def drawing_flop(counts: Counts) -> float:
    """Operations of one picture: its steps with guidance, its prompt and the empty one, its decoding."""
    return 2 * STEPS * counts.forward_flop + 2 * counts.text_flop + counts.decoder_flop


def fitting(stage: Callable[[int], StageMemory], most: int, gpu: Gpu) -> tuple[int, bool]:
    """(images at once, whether one network at a time) with which a stage fits a card, the mildest first.

    stage: its memory by images at once. most: of those. Smaller batches are milder than offload. Where nothing fits,
    the least that can be tried.
    """
    for apart in (False, True):
        for found in map(stage, halvings(most)):
            held = found.apart_gb if apart else found.together_gb
            if needed_gb({"held": held * GB}, gpu) <= gpu.memory_gb:
                return found.batch, apart
    return 1, True


def stage_words(config: RunConfig, counts: Counts, gpu: Gpu) -> tuple[list[str], list[str]]:
    """(overrides with which the cache fits a card, options with which `finepref generate` does)."""
    options, most = config.train, config.cache.batch_size
    batch, apart = fitting(lambda size: caching(config, counts, batch=size), most, gpu)
    caches = [*([f"cache.batch_size={batch}"] if batch < most else []), *(["cache.offload=true"] if apart else [])]
    batch, apart = fitting(lambda size: drawing(config, counts, batch=size), PICTURES, gpu)
    drawn = [] if options.mixed_precision == "no" else ["--precision", options.mixed_precision]
    drawn += [] if config.model.quantize is None else ["--quantize", config.model.quantize]
    drawn += [] if batch == PICTURES else ["--batch-size", str(batch)]
    return caches, [*drawn, *(["--offload"] if apart else [])]
