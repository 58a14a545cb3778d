"""Graphics cards by name or by size of memory: what `--card` and `--gpu` take."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finepref.core.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card. memory_gb: 1e9 bytes. half, full: peak TFLOP/s of dense half-precision matrix products with float32 sums,
    and of float32 ones; None where only the size is known. bf16: whether it has that format.
    """

    name: str
    memory_gb: float
    half: float | None
    full: float | None
    source: str
    bf16: bool = True

    @property
    def is_cpu(self) -> bool:
        """Whether it is no card but this machine's own memory."""
        return self.name == CPU


CPU = "cpu"
# Dense rates (no structured sparsity), from the makers' data sheets and architecture papers.
_ALL = (
    Gpu("H200", 141, 989, 67, "NVIDIA H200 data sheet, SXM"),
    Gpu("H100", 80, 989, 67, "NVIDIA H100 data sheet, SXM"),
    Gpu("A100", 80, 312, 19.5, "NVIDIA A100 data sheet, 80 GB SXM"),
    Gpu("L40S", 48, 362, 91.6, "NVIDIA L40S data sheet"),
    Gpu("RTX4090", 24, 165.2, 82.6, "NVIDIA Ada architecture paper, float32 accumulation"),
    Gpu("A100-40GB", 40, 312, 19.5, "NVIDIA A100 data sheet, 40 GB"),
    Gpu("A6000", 48, 154.8, 38.7, "NVIDIA RTX A6000 data sheet, half of the sparse rate"),
    Gpu("RTX5090", 32, 209.5, 104.8, "NVIDIA Blackwell RTX architecture paper"),
    Gpu("RTX3090", 24, 71, 35.6, "NVIDIA GA102 architecture paper"),
    Gpu("A10G", 24, 70, 35, "AWS G5 and NVIDIA A10G data sheet"),
    Gpu("L4", 24, 121, 30.3, "NVIDIA L4 data sheet, half of the sparse rate"),
    Gpu("RTX4080", 16, 97.5, 48.7, "NVIDIA Ada architecture paper"),
    Gpu("T4", 16, 65, 8.1, "NVIDIA T4 data sheet", bf16=False),
    Gpu("V100", 16, 125, 15.7, "NVIDIA V100 data sheet, 16 GB SXM2", bf16=False),
    Gpu("RTX4070", 12, 58.3, 29.1, "twice its float32 rate, as on other Ada cards"),
    Gpu("RTX3060", 12, 25.5, 12.7, "twice its float32 rate, as on other GA10x cards"),
)
GPUS: Mapping[str, Gpu] = {gpu.name: gpu for gpu in _ALL}
USUAL = tuple(GPUS)[:5]
"""What a plan shows where no card is named."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:gb|gib|g)?", re.IGNORECASE)


def gpus_of(names: Sequence[str]) -> list[Gpu]:
    """Cards by name, in any case and with or without RTX and NVIDIA; `24GB` is a card of that size, `cpu` no card.

    Raises:
        ConfigError: an unknown name, or no memory.
    """
    return [gpu_of(name) for name in names]


def gpu_of(name: str) -> Gpu:
    """One card; see `gpus_of`."""
    if name.lower() == CPU:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        return Gpu(CPU, memory, None, None, "this machine's memory")
    known = {_plain(each): gpu for each, gpu in GPUS.items()}
    if _plain(name) in known:
        return known[_plain(name)]
    if (size := _SIZE.fullmatch(name.strip())) and 0 < float(size[1]) < 1000:
        memory = float(size[1])
        return Gpu(f"{memory:g}GB", memory, None, None, "its size alone")
    remedy = f"{nearest(name.upper(), (*GPUS, CPU))}; or give its memory, as 24GB"
    raise ConfigError(f"unknown GPU {name!r}", where="gpu", remedy=remedy)


def _plain(name: str) -> str:
    """A name without its maker, series, spaces and dashes."""
    return re.sub(r"nvidia|geforce|tesla|rtx|[\s_-]", "", name.lower())
