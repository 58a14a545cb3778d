"""`finepref plan`: counts against published architectures, work against arithmetic, memory and remedies by hand."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import architectures

import own_pairs
import tiny
from finepref.core.errors import ConfigError, InputError
from finepref.diffusion.path import FLOW, scaled_linear
from finepref.formats import layers
from finepref.models.kernels import Checkpointing
from finepref.models.lora import LoraSettings
from finepref.plan.cards import GPUS, Gpu, gpus_of
from finepref.plan.data_sizes import DataSizes
from finepref.plan.fit import changed, remedies
from finepref.plan.needs import Counts, Work, cache_of, mean_calls, memory_of, needed_gb, work_of
from finepref.plan.plan import plan_run
from finepref.plan.printed import describe
from finepref.plan.skeleton import Flops, Peak, config_source, count
from finepref.train.config import RunConfig, load_config, parse_config
from finepref.train.method import make_method

TERA = 1e12


def counts_of(
    name: str, folder: Path, lora: LoraSettings | None = None, checkpointing: Checkpointing = False
) -> Counts:
    base = architectures.write_configs(folder / name, name)
    return count(base, resolution=architectures.RESOLUTION[name], lora=lora, gradient_checkpointing=checkpointing)[0]


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Counts:
    return counts_of("sd15", tmp_path_factory.mktemp("plan"))


def config(**sections: object) -> RunConfig:
    return parse_config({"model": {"base": "x"}, **sections})


def work(counts: Counts, **sections: object) -> Work:
    run = config(**sections)
    return work_of(run, make_method(run), counts, scaled_linear(), images=0, prompts=0)


def test_sd15_is_counted_as_published(sd15: Counts) -> None:
    """859,520,964 parameters (the published checkpoint); 339 GMAC without attention; attention is 16 % of the work."""
    assert sd15.parameters == sd15.trained == 859_520_964
    assert sd15.latent == (4, 64, 64)
    assert sd15.condition == 77 * 768
    assert sd15.forward_flop / TERA == pytest.approx(0.8033, abs=5e-5)
    attention = sum(
        4 * heads * tokens * (tokens + 77) * width
        for blocks, heads, tokens, width in ((5, 8, 4096, 40), (5, 8, 1024, 80), (5, 8, 256, 160), (1, 8, 64, 160))
        for _ in range(blocks)
    )
    assert (sd15.forward_flop - attention) / 2e9 == pytest.approx(339, rel=3e-3)
    assert sd15.training_flop / TERA == pytest.approx(2.470, abs=5e-4)
    assert sd15.training_bytes / 2e9 == pytest.approx(0.94, rel=0.02)
    assert sd15.vae_parameters == pytest.approx(34.16e6, rel=1e-3)
    assert sd15.vae_flop / TERA == pytest.approx(1.117, abs=5e-4)
    assert sd15.vae_parameters + sd15.decoder_parameters == 83_653_863
    assert sd15.text_parameters == 123_060_480
    assert sd15.text_flop / 1e9 == pytest.approx(13.3, rel=0.02)


def test_sd15_lora_and_checkpointing(tmp_path: Path) -> None:
    lora = counts_of("sd15", tmp_path, lora=LoraSettings(rank=8))
    assert lora.trained == 1_594_368
    assert lora.training_flop / TERA == pytest.approx(1.781, abs=5e-4)
    texts = counts_of("sd15", tmp_path, lora=LoraSettings(rank=8, text_encoder=True))
    assert texts.trained == 1_594_368 + 12 * 4 * 2 * 768 * 8  # layers, projections, both matrices, width, rank
    assert texts.parameters == lora.parameters + 123_060_480 + 12 * 4 * 2 * 768 * 8
    assert texts.forward_flop - lora.forward_flop == pytest.approx(lora.text_flop, rel=0.15)  # and attention, and LoRA
    every = counts_of("sd15", tmp_path, checkpointing=True)
    assert every.training_flop / TERA == pytest.approx(3.065, abs=5e-4)


def test_sdxl_is_counted_as_published(tmp_path: Path) -> None:
    counts = counts_of("sdxl", tmp_path)
    assert counts.parameters == 2_567_463_684
    assert counts.forward_flop / TERA == pytest.approx(6.761, abs=5e-4)
    assert counts.training_flop / TERA == pytest.approx(20.62, abs=5e-3)
    assert counts.vae_flop / TERA == pytest.approx(4.879, abs=5e-4)
    assert counts.text_parameters == 123_060_480 + 694_659_840
    assert work(counts).draw_flop / TERA == pytest.approx(54.8, abs=0.05)
    smpo = {"name": "renoise", "grid": "official-current", "steps": 10, "renoise": "each"}
    assert work(counts, trajectory=smpo).draw_flop / TERA == pytest.approx(203.0, rel=3e-3)


@pytest.mark.parametrize(
    ("sections", "tera"),
    [
        ({"objective": {"name": "sft"}, "data": {}}, 2.47),
        ({"objective": {"name": "mapo"}}, 4.94),
        ({"objective": {"name": "dpo"}}, 6.55),
        ({"objective": {"name": "dspo"}}, 6.55),
        ({"objective": {"name": "dpo"}, "train": {"reference_cache": "errors"}}, 4.94),
        ({"objective": {"name": "kto"}, "train": {"pairs_per_step": 8}}, 2.47 + 0.8033),
        ({"trajectory": {"name": "renoise", "grid": "official-current", "steps": 5, "renoise": "each"}}, 16.15),
    ],
)
def test_the_work_of_a_draw(sd15: Counts, sections: dict, tera: float) -> None:
    """TFLOP per pair (per image for unpaired objectives) on SD1.5."""
    assert work(sd15, **sections).draw_flop / TERA == pytest.approx(tera, rel=2e-3)


def test_the_anchor_of_single_images(sd15: Counts) -> None:
    """KTO in several micro-batches predicts every image once more, without gradient; not where one process has one."""
    own = {"objective": {"name": "kto"}, "signal": {"file": "kto.parquet"}}
    one = work(sd15, **own, train={"pairs_per_step": 8, "micro_batch": 8})
    two = work(sd15, **own, train={"pairs_per_step": 8, "micro_batch": 4})
    assert two.draw_flop - one.draw_flop == sd15.forward_flop


def test_the_work_of_a_run(sd15: Counts) -> None:
    """2000 steps of 2048 pairs: 26.8 EFLOP."""
    found = work(sd15, train={"max_steps": 2000, "pairs_per_step": 2048})
    assert found.draws == 4_096_000
    assert found.run_flop / 1e18 == pytest.approx(26.8, abs=0.05)


def test_mean_calls_of_an_inversion() -> None:
    """The official grids by their published means over t in 0..999, where levels below the first make no step."""
    for steps, grid, lowest, expected in ((5, "official-current", 2, 5.98), (10, "official-current", 2, 10.96)):
        run = config(trajectory={"name": "renoise", "grid": grid, "steps": steps, "renoise": "each"})
        method = make_method(run)
        assert method.inversion is not None
        calls = mean_calls(method.inversion, scaled_linear())
        assert calls * (1000 - lowest) / 1000 == pytest.approx(expected, abs=0.006)
    plain = make_method(config(trajectory={"name": "ddim_inversion"})).inversion
    assert plain is not None
    assert 1 <= mean_calls(plain, FLOW) <= 9


def test_the_work_of_guidance_and_of_shared_trajectories(sd15: Counts) -> None:
    """Guidance asks twice; five levels on one trajectory of the official grid: 9.77 TFLOP a draw (SD1.5)."""
    plain = work(sd15, trajectory={"name": "ddim_inversion"})
    assert work(sd15, trajectory={"name": "ddim_inversion", "cfg": 7.5}).inversion == 2 * plain.inversion
    assert work(sd15, trajectory={"name": "ddim_inversion", "cfg": 0}).inversion == plain.inversion
    own = {"name": "renoise", "grid": "official-current", "renoise": "each", "steps": 5, "share": 5}
    shared = work(sd15, trajectory=own, train={"pairs_per_step": 40})
    assert 2 * 5 * 2 / 5 * 0.85 < shared.inversion < 2 * 5 * 2 / 5
    assert shared.draw_flop / TERA == pytest.approx(9.77, rel=0.05)


def made_up(**changes: float) -> Counts:
    """A network of round numbers."""
    numbers = {
        "parameters": 1_000_000_000, "trained": 1_000_000_000, "castable": 900_000_000, "linear": 800_000_000,
        "factored": 1_000_000, "condition": 100_000,
        "forward_flop": 1e12, "training_flop": 3e12, "training_bytes": 3e9, "forward_bytes": 2e9,
        "vae_parameters": 1, "vae_flop": 1e12, "decoder_parameters": 1, "decoder_bytes": 1e9,
        "text_parameters": 1, "text_flop": 1e10, **changes,
    }  # fmt: skip
    return Counts(latent=(4, 50, 50), **numbers)  # type: ignore[arg-type]


def memory(counts: Counts, processes: int = 1, **sections: object) -> dict[str, float]:
    run = config(**sections)
    return {k: v / 1e9 for k, v in memory_of(run, make_method(run), counts, processes=processes).items()}


def test_memory_by_part() -> None:
    """Full fine-tuning in float32: 4 + 4 + 4 + 8 bytes a weight; activations of 2 images a pair; two batches."""
    parts = memory(made_up(), train={"micro_batch": 5})
    expected = {"weights": 4, "reference": 4, "gradients": 4, "optimiser": 8, "moving average": 0, "activations": 30}
    assert {k: parts[k] for k in expected} == pytest.approx(expected)
    assert parts["batches"] == pytest.approx(2 * 4 * 10 * (4 * 4 * 50 * 50 + 100_000) / 1e9)


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_memory_in_half_precision(half: str) -> None:
    """The reference stores half where autocast would cast; the policy keeps half copies once, not once an image."""
    parts = memory(made_up(), train={"micro_batch": 5, "mixed_precision": half, "ema_decay": 0.999})
    assert parts["weights"] == 4
    assert parts["reference"] == pytest.approx(2 * 0.9 + 4 * 0.1)
    assert parts["moving average"] == 4
    assert parts["activations"] == pytest.approx(1.8 + 10 * (3 - 1.8))


def test_memory_of_variants() -> None:
    half = {"mixed_precision": "bf16", "micro_batch": 1}
    lora = memory(made_up(trained=1_000_000), train=half, lora={"rank": 8})
    moving = {**half, "reference": {"kind": "ema", "decay": 0.99}}
    assert memory(made_up(), train=moving)["reference"] == pytest.approx(4.0)  # GB, full precision: it is added to
    assert memory(made_up(trained=1_000_000), train=moving, lora={"rank": 8})["reference"] == pytest.approx(4e-3)
    assert lora["weights"] == pytest.approx(2.2)
    assert (lora["reference"], lora["gradients"], lora["optimiser"]) == (0, 0.004, 0.008)
    assert memory(made_up(), train={**half, "reference_cache": "errors"})["reference"] == 0
    assert memory(made_up(), train={**half, "optimizer": "adafactor"})["optimiser"] == pytest.approx(0.004)
    assert memory(made_up(), objective={"name": "mapo"})["reference"] == 0
    sharded = memory(made_up(), processes=4, train={**half, "distributed": "fsdp2"})
    assert (sharded["weights"], sharded["gradients"], sharded["optimiser"]) == (1, 1, 2)
    inverted = memory(made_up(), train={**half, "place_batch": 64}, trajectory={"name": "renoise"})
    assert inverted["activations"] == pytest.approx(1.8 + 128 * 0.2)


def test_memory_of_validation_images() -> None:
    """Text encoders and VAE in float32, 4 bytes a weight; decoding an image where it needs more than a step."""
    counts = made_up(text_parameters=500_000_000, vae_parameters=100_000_000, decoder_parameters=150_000_000)
    train = {"micro_batch": 1}
    drawn = memory(counts, train=train, validation={"every": 100, "prompts": ["a dog"]})
    assert drawn["validation"] == pytest.approx(4 * 0.75)
    assert drawn["activations"] == memory(counts, train=train)["activations"] == pytest.approx(6)
    for never in ({"prompts": ["a dog"]}, {"every": 100}):
        assert memory(counts, train=train, validation=never)["validation"] == 0
    large = made_up(decoder_bytes=9e9)
    validation = {"every": 100, "prompts": ["a dog"]}
    assert memory(large, train=train, validation=validation)["activations"] == pytest.approx(9)
    assert memory(large, train=train)["activations"] == pytest.approx(6)


def test_the_cache_on_disk() -> None:
    """SD1.5: 32 kB a latent in float16, twice with mean and std, twice again with mirrors; 118 kB a prompt."""
    counts = Counts(**{**_fields(made_up()), "latent": (4, 64, 64), "condition": 77 * 768})
    once = cache_of(config(cache={"posterior": "mode"}), counts, DataSizes(10, 3, 5, "data"))
    assert (once.image_bytes, once.prompt_bytes) == (32_768, 118_272)
    assert once.total_bytes == 10 * 32_768 + 3 * 118_272
    assert cache_of(config(data={"flip": True}), counts, DataSizes(1, 0, 1, "data")).image_bytes == 4 * 32_768
    train = {"reference_cache": "errors", "max_steps": 2000, "pairs_per_step": 2048}
    errors = cache_of(config(train=train), counts, DataSizes(1, 1, 4_096_000, "data"))
    assert errors.reference_bytes / 1e6 == pytest.approx(33, rel=0.01)


def _fields(counts: Counts) -> dict:
    return {name: getattr(counts, name) for name in Counts.__slots__}


def test_needed_memory_leaves_room() -> None:
    assert needed_gb({"a": 19e9, "b": 19e9}, GPUS["H200"]) == pytest.approx(40 + 1.5)
    (own,) = gpus_of(["cpu"])
    assert needed_gb({"a": 19e9, "b": 19e9}, own) == pytest.approx(38 + 0.6)
    assert needed_gb({"weights": 2e9, "b": 19e9}, own) == pytest.approx(21 + 0.6 + 0.52)  # the kernels' space
    assert needed_gb({"weights": 9e9}, own) == pytest.approx(9 + 0.6 + 0.88)


def fits_with(gpu: str, counts: Counts, **sections: object) -> tuple[str, ...]:
    run = config(**sections)
    return remedies(GPUS[gpu], run, make_method(run), lambda _: counts, processes=1)


def test_remedies_are_the_mildest() -> None:
    """First a smaller micro-batch alone; else half precision; else what recomputes; LoRA and more GPUs at last."""
    train = {"micro_batch": 16, "mixed_precision": "no"}
    assert fits_with("H100", made_up(), train=train)[0] == "train.micro_batch=8"
    large = made_up(training_bytes=28e9)
    assert fits_with("H100", large, train=train)[0] == "train.mixed_precision=bf16 train.micro_batch=1"
    (lora,) = fits_with("RTX4090", made_up(trained=2e6, training_bytes=9e9), train=train, lora={"rank": 8})
    assert lora == "train.mixed_precision=bf16 train.micro_batch=1"


def test_what_each_remedy_saves_decides() -> None:
    """Counts that depend on the config: checkpointing keeps a tenth, LoRA trains a thousandth."""

    def counted(run: RunConfig) -> Counts:
        kept = {False: 30e9, "selective": 16e9, True: 3e9}[run.train.gradient_checkpointing]
        if run.train.mixed_precision != "no":
            kept = kept / 2 + 1.8e9
        return made_up(training_bytes=kept, trained=1e6 if run.lora else 1e9)

    def found(gpu: str, **train: object) -> tuple[str, ...]:
        run = config(train={"micro_batch": 1, **train})
        return remedies(GPUS[gpu], run, make_method(run), counted, processes=1)

    assert found("L40S")[0] == "train.mixed_precision=bf16 train.gradient_checkpointing=selective"
    two = ("train.gradient_checkpointing=selective", "train.distributed=fsdp2 on 2 GPUs")
    assert found("L40S", mixed_precision="bf16") == two
    assert found("L40S", mixed_precision="fp16") == two, "whose GPU may have no bf16"
    both = "train.gradient_checkpointing=true train.reference_cache=reference"
    assert found("RTX4090", mixed_precision="bf16")[0] == both
    smaller = {"mixed_precision": "bf16", "gradient_checkpointing": True}
    assert found("RTX4090", **smaller)[0] == "train.reference_cache=reference"
    assert found("RTX4090", ema_decay=0.9, **smaller)[0] == "train.optimizer=adafactor"
    run = config(objective={"name": "dspo"}, train={"micro_batch": 1, **smaller})
    assert remedies(GPUS["RTX4090"], run, make_method(run), counted, processes=1)[0] == "train.optimizer=adafactor"


def test_nothing_helps() -> None:
    assert fits_with("RTX4090", made_up(training_bytes=900e9)) == ()


def test_changed_configs_are_checked() -> None:
    assert changed(config(), {"train.micro_batch": 3}).train.micro_batch == 3
    with pytest.raises(ConfigError, match="micro_batch"):
        changed(config(), {"train.micro_batch": 0})


@pytest.mark.parametrize(
    ("typed", "name", "memory"),
    [
        ("h200", "H200", 141), ("RTX4090", "RTX4090", 24), ("rtx 4090", "RTX4090", 24), ("4090", "RTX4090", 24),
        ("NVIDIA GeForce RTX 3060", "RTX3060", 12), ("Tesla T4", "T4", 16), ("a100_40gb", "A100-40GB", 40),
        ("24GB", "24GB", 24), ("24 gib", "24GB", 24), ("24", "24GB", 24), ("7.5G", "7.5GB", 7.5),
    ],
)  # fmt: skip
def test_cards(typed: str, name: str, memory: float) -> None:
    """The usual names however they are typed, and any size."""
    assert [(gpu.name, gpu.memory_gb) for gpu in gpus_of([typed])] == [(name, memory)]


@pytest.mark.parametrize("typed", ["H101", "0GB", "-3", "24TB", "", "nan", "4001", "1e3GB"])
def test_unknown_gpus_are_named(typed: str) -> None:
    with pytest.raises(ConfigError, match="or give its memory, as 24GB"):
        gpus_of([typed])


def test_a_base_out_of_reach_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nobody/nothing: neither a folder here nor a model the hub hands out"):
        count("nobody/nothing", resolution=512)
    with pytest.raises(InputError, match="belongs to a hub name"):
        config_source(tiny.sd15(tmp_path), revision="main")


def test_of_a_hub_name_only_config_files_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look is the download: what it asks for takes no weight, no index of weights and no vocabulary."""
    asked: list[dict] = []

    def snapshot_download(name: str, **given: object) -> str:
        asked.append(given)
        raise FileNotFoundError(name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(InputError, match="owner/model"):
        config_source("owner/model", revision="v1")
    assert [given.get("local_files_only", False) for given in asked] == [True, False]
    assert {given["revision"] for given in asked} == {"v1"}
    files = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json",
             "text_encoder_3/config.json", "scheduler/scheduler_config.json", "vae/config.json", "vae_1_0/config.json",
             "transformer/diffusion_pytorch_model.safetensors.index.json", "model.ckpt"]  # fmt: skip
    taken = [file for file in files if any(fnmatch(file, pattern) for pattern in asked[1]["allow_patterns"])]
    assert taken == [files[0], files[1], files[4], files[5], files[6]]


@pytest.mark.parametrize("family", [*tiny.BUILDERS])
def test_counts_are_those_of_the_real_network(family: str, tmp_path: Path) -> None:
    """Parameters and latent shape of every family, against the loaded networks and a real encoding."""
    from finepref.models.encoder import LatentEncoder
    from finepref.models.load import load_adapter

    base = getattr(tiny, family)(tmp_path / family)
    counts, path = count(base, resolution=32)
    adapter = load_adapter(base, reference=False)
    assert counts.parameters == sum(p.numel() for p in adapter.policy_module().parameters())
    pipe = adapter.pipeline()
    texts = [part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]
    assert counts.text_parameters == sum(p.numel() for part in texts for p in part.parameters())
    assert counts.vae_parameters + counts.decoder_parameters == sum(p.numel() for p in pipe.vae.parameters())
    assert {p.dtype for part in (*texts, pipe.vae) for p in part.parameters()} == {torch.float32}
    assert counts.decoder_bytes > 0
    mean, _ = LatentEncoder(base, resolution=32).encode_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert counts.latent == tuple(mean.shape[1:])
    assert path.discrete == adapter.path.discrete
    assert counts.training_flop > 2.5 * counts.forward_flop > 0
    assert counts.training_bytes > counts.forward_bytes > 0


@pytest.mark.parametrize(("groups", "transposed"), [(1, False), (8, False), (4, True)])
def test_convolutions_are_counted_by_their_groups(groups: int, transposed: bool) -> None:
    """2 operations for every weight and position that it meets, forward, and again for each gradient."""
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = make(8, 16, 3, stride=2, padding=1, groups=groups)
    x = torch.zeros(2, 8, 12, 12, requires_grad=True)
    once = 2 * 2 * (144 if transposed else 36) * (8 * 16 // groups) * 9
    with Flops() as forward:
        y = layer(x)
    with Flops() as backward:
        y.sum().backward()
    assert forward.total == once
    assert backward.total == 2 * once


def test_checkpointing_saves_memory_while_operations_are_counted() -> None:
    """20 blocks that widen 16 numbers to 64: kept are the 20 inputs and one block's insides, not 20 of them."""
    blocks = [nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16)) for _ in range(20)]
    x = torch.zeros(1000, 16, requires_grad=True)
    weights = [p for block in blocks for p in block.parameters()]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    with Peak([*weights, *(p.grad for p in weights if p.grad is not None), x]) as peak, Flops() as work:
        y = x
        for block in blocks:
            y = checkpoint(block, y, use_reentrant=False)
        y.sum().backward()
    inputs, inside = 20 * 64_000, 2 * 256_000
    assert inputs < peak.highest < inputs + 2 * inside
    assert work.total == 20 * (4 * 2 * 2 * 1000 * 16 * 64) - 20 * 2 * 1000 * 16 * 64  # the last product is not repeated


def test_peak_follows_what_lives() -> None:
    """1000 floats live at once twice: 8000 bytes, however many were made."""
    start = torch.zeros(1000)
    with Peak([start]) as peak:
        x = start + 1
        for _ in range(5):
            x = x * 2
    assert peak.highest == 8000
    assert peak.now == 4000
    with Peak([start]) as flat:
        nn.functional.relu(start.view(10, 100), inplace=True)
    assert flat.highest == 0


def test_a_card_that_no_table_knows(tmp_path: Path) -> None:
    """The card in a machine may have any name: its plan is printed with what is known of it."""
    own_pairs.make_folder(tmp_path / "data", pairs=2)
    words = [f"data.paths=[{tmp_path / 'data'}]", f"cache.folder={tmp_path / 'cache'}"]
    own = Gpu("NVIDIA GeForce GTX 9999", 24.0, None, None, "this machine", bf16=False)
    text = describe(plan_run(load_config("lab/dpo", words), gpus=[own], processes=1), prices={})
    assert "NVIDIA GeForce GTX 9999" in text
    assert "has no bf16: train.mixed_precision=fp16" in text


SIZES = {"t4": "T4", "12gb": "12GB", "16gb": "16GB", "24gb": "24GB", "48gb": "48GB", "80gb": "A100"}


@pytest.mark.parametrize(
    ("card", "base"), [("t4", "sd15"), ("24gb", "sd15"), ("24gb", "flux"), ("12gb", "sd3"), ("t4", "sdxl")]
)
def test_card_layers(tmp_path: Path, card: str, base: str) -> None:
    """What a card's layer sets for a base fits that card without any recipe, and leaves less than half of it unused.

    So does its cache.
    """
    own_pairs.make_folder(tmp_path / "data", pairs=2)
    model = architectures.write_configs(tmp_path / "model", base)
    words = [f"data.paths=[{tmp_path / 'data'}]", "cache.folder=cache", f"model.base={model}", "model.vae=null"]
    config, (gpu,) = load_config([base, "dpo", card], words), gpus_of([SIZES[card]])
    plan = plan_run(config, gpus=[gpu], processes=1)
    (found,) = plan.gpus
    assert 0.5 * found.memory_gb < found.needed_gb < found.memory_gb
    caching = plan.caching.apart_gb if config.cache.offload else plan.caching.together_gb
    assert needed_gb({"cache": caching * 1e9}, gpu) < gpu.memory_gb


def test_every_card_has_its_bases() -> None:
    """A layer for a card builds with every base it has a part for, and the plan knows its size."""
    for card, size in SIZES.items():
        parts = [part for part in layers.read_layer(layers.shipped_layers()[f"card/{card}"]).parts if part]
        assert parts
        for part in parts:
            make_method(load_config([part.removeprefix("on_"), "dpo", card], ["data.paths=[x]", "cache.folder=y"]))
        assert gpus_of([size])[0].memory_gb >= 12
