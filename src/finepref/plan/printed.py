"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from finepref.plan.needs import FRAGMENTS, GOOD, MANY, POOR, RESERVED_GB, OnGpu, Plan, StageMemory
from finepref.plan.scoring import SCORER
from finepref.plan.stage_memory import STEPS

SHORT = 0.001  # hours and days; what is less is not told apart
SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
KNOWN = {
    "cache": "counted: as the cache of the run holds them",
    "data": "counted in the data, by its own names of images; images that are equal are kept once",
    "draws": "guessed: the data is not here, and every draw is taken for another pair",
}
STAGES = ("cache", "generate", "score")
FLOPS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


def describe(plan: Plan, *, prices: Mapping[str, float], scored: bool = True) -> str:
    """The plan, part by part.

    prices: GPU name -> price of one GPU hour. scored: whether a scorer of the hub is among what is run.
    """
    counts, work, cache = plan.counts, plan.work, plan.cache
    most, guess = "" if cache.by == "cache" else " at most", " (guessed)" if cache.guessed else ""
    most += guess
    lines = [
        f"Model     {plan.family}, {counts.parameters / 1e6:,.2f} M parameters, {counts.trained / 1e6:,.2f} M trained",
        f"Work      {_scaled(work.draw_flop, FLOPS)} a draw: {work.policy:g} policy images "
        f"({_scaled(counts.training_flop, FLOPS)} each, with backward),",
        f"          {work.reference:g} reference and {work.inversion:.4g} inversion images "
        f"({_scaled(counts.forward_flop, FLOPS)} each)",
        f"          {work.draws:,} draws: {_scaled(work.run_flop, FLOPS)}; the latent cache before it: "
        f"{_scaled(work.cache_flop, FLOPS)}{most}",
        f"Disk      latent cache {_scaled(cache.total_bytes, SIZES)}{most}:",
        f"          {cache.images:,}{guess} images of {_scaled(cache.image_bytes, SIZES)}, "
        f"{cache.prompts:,}{guess} prompts of {_scaled(cache.prompt_bytes, SIZES)}",
        f"          {KNOWN[cache.by]}",
    ]
    if cache.several:
        lines += [
            "          data.buckets: these are squares, which take the most; a picture in pairs of several shapes is"
        ]
        lines += ["          kept once for each, which is not counted"]
    if cache.reference_bytes:
        lines.append(f"          reference errors {_scaled(cache.reference_bytes, SIZES)}{guess}")
    if cache.trajectory_bytes:
        lines.append(f"          inversions by the reference {_scaled(cache.trajectory_bytes, SIZES)}")
    folder = plan.folder
    lines += [
        f"          the run {_scaled(folder.total_bytes, SIZES)}: what it leaves, {_scaled(folder.left_bytes, SIZES)}, "
        f"and {folder.kept} checkpoint{'s' * (folder.kept > 1)} of {_scaled(folder.checkpoint_bytes, SIZES)}"
    ]
    lines += ["", f"Memory of one GPU (of {plan.processes}), estimate"]
    lines += [f"  {name:<16}{value:>9.2f} GB" for name, value in plan.memory_gb.items() if value > 0]
    lines += [
        f"  {'together':<16}{sum(plan.memory_gb.values()):>9.2f} GB",
        "",
        *_others(plan, scored=scored),
        "",
        *_host(plan, scored=scored),
        "",
        f"Time, estimate: {GOOD:.0%} to {POOR:.0%} of the data sheet's peak rate. Needed: the parts,",
        f"{RESERVED_GB:g} GB of CUDA's own and {FRAGMENTS:.0%} lost between blocks.",
        *(
            ["On a CPU: the parts, and what Python and the kernels take."]
            if any(card.is_cpu for card in plan.cards)
            else []
        ),
        f"  {'GPU':<9}{'memory':>8}{'needed':>9}  {'GPU hours':<20}{'days on ' + str(plan.processes):<20}"
        + (f"{'cost':<20}" if prices else "")
        + "fits",
    ]
    for found in plan.gpus:
        lines += _row(found, prices)
    timed = [found for found in plan.gpus if found.stages]
    if timed:
        heads = (f"cache{guess}", f"{MANY:,} pictures drawn", "and scored")
        lines += ["", f"GPU hours of the other stages, the same shares; {STEPS} steps with guidance a picture"]
        lines += [f"  {'GPU':<11}" + "".join(f"{head:<23}" for head in heads)]
        lines += [
            f"  {each.gpu:<11}" + "".join(f"{_range(each.stages[name]):<23}" for name in STAGES) for each in timed
        ]
    rated = [(card.name, card.half, card.full, card.source) for card in plan.cards if card.half and card.full]
    if rated:
        lines += ["", "Peak rates in TFLOP/s, dense half precision and float32, by the makers"]
        lines += [f"  {name:<9}{half:>6g}{full:>7g}   {source}" for name, half, full, source in rated]
    lines += [f"{card.name} has no bf16: train.mixed_precision=fp16" for card in plan.cards if not card.bf16]
    return "\n".join(line.rstrip() for line in lines)


def _others(plan: Plan, *, scored: bool) -> list[str]:
    """What the stages before and after training take of a GPU."""
    draws = f"(--batch-size {plan.drawing.batch}, in the precision of training)"
    lines = [
        "Memory of the other stages, estimate (in brackets with --offload); what text encoders compute is left out",
        f"  {'cache':<16}{_stage(plan.caching)} (cache.batch_size={plan.caching.batch})",
        f"  {'generate':<16}{_stage(plan.drawing)} {draws}",
    ]
    if scored:
        lines += [f"  {'score':<16}{plan.scoring.together_gb:>9.2f} GB (--batch-size {plan.scoring.batch}, {SCORER})"]
    return lines


def _host(plan: Plan, *, scored: bool) -> list[str]:
    """What the host holds, by stage."""
    several, cpu = plan.processes > 1, any(card.is_cpu for card in plan.cards)
    guesses = ["the weights are not here, and are guessed to be saved in float32"] * (not plan.files)
    guesses += ["how many pairs there are is guessed"] * plan.cache.guessed
    heads = ["a process", "weight files", "together", *([f"{plan.processes} processes"] if several else [])]
    lines = [
        "Memory of the host at the start, estimate without CUDA's own, which is not measured; weight files are mapped,",
        "so that the processes of a machine share them",
        *([f"  {'; '.join(guesses)}"] if guesses else []),
        f"  {'':<10}" + "".join(f"{head:>15}" for head in [*heads, *(["on a CPU"] if cpu else [])]),
    ]
    for name, found in plan.host.items():
        if name == "score" and not scored:
            continue
        cells = [found.own_gb, found.files_gb, found.machine_gb(1)]
        cells += [found.machine_gb(plan.processes)] if several else []
        cells += [found.cpu_gb] if cpu else []
        lines.append(f"  {name:<10}" + "".join(f"{cell:>12.2f} GB" for cell in cells))
    return lines


def _stage(found: StageMemory) -> str:
    return f"{found.together_gb:>9.2f} GB [{found.apart_gb:.2f} GB]"


def _row(found: OnGpu, prices: Mapping[str, float]) -> list[str]:
    cells = f"  {found.gpu:<9}{found.memory_gb:>5.0f} GB{found.needed_gb:>6.1f} GB  "
    cells += f"{_range(found.hours):<20}{_range(found.days):<20}"
    if prices:
        price = prices.get(found.gpu)
        cost = "" if price is None or found.hours is None else _range((found.hours[0] * price, found.hours[1] * price))
        cells += f"{cost:<20}"
    if found.fits:
        return [cells + "yes"]
    if not found.remedies:
        return [cells + "no, with no option that is known here"]
    return [cells + "no; fits with", *(f"{'':12}{remedy}" for remedy in found.remedies)]


def _range(values: tuple[float, float] | None) -> str:
    if values is None:
        return "not known"
    if max(values) < SHORT:
        return f"under {SHORT:g}"
    return " - ".join(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values)


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    for size, unit in units:
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g} {units[-1][1] if value == 0 else 'B' if units is SIZES else 'FLOP'}"
