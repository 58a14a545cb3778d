"""Lists of a prompt's images, ranked by what a signal says of their pairs, and the losses of such lists.

A signal of differences (kinds `posterior` with form `margin`, `reward-margin`) gives every image a score, up to a
constant in each set of images that its pairs connect; images are ranked inside such a set.
Shapes: B lists of K images, C channels, H W latent size; [K,B,...] has the best image of every list first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from finepref.core import rng
from finepref.core.errors import InputError
from finepref.core.progress import say
from finepref.core.tensors import ListBatch, ListPrediction
from finepref.data.latents import Latents
from finepref.formats.run import RunSignals
from finepref.formats.signals import read_signals
from finepref.models.denoiser import Denoiser
from finepref.objectives.core import mean_square, wide
from finepref.train.batches import Draw, Drawing, pair_order
from finepref.train.data import about_signals
from finepref.train.method import Method
from finepref.train.step import Calls, Output

SLACK = 1e-3  # of margins in float32, against the differences of scores
REMEDY = "make it with `finepref signals --kind posterior --form margin`, or --kind reward-margin"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ListTable:
    """N sets of images of one prompt: id, prompt hash, image hashes, the best first. size: images of a draw.

    bucket: of all images, which have one shape.
    """

    list_id: tuple[str, ...]
    prompt: tuple[str, ...]
    images: tuple[tuple[str, ...], ...]
    bucket: tuple[str, ...]
    size: int
    about: RunSignals

    @property
    def ids(self) -> tuple[str, ...]:
        """What a row of it is named by."""
        return self.list_id


def list_table(cache: Latents, *, signals: str, size: int, without: frozenset[str] = frozenset()) -> ListTable:
    """The cache's images, ranked by a signal of differences; sets of fewer than `size` images are left out.

    without: pairs that are held out.

    Raises:
        InputError: a signal that cannot be used, whose margins are no differences of scores, or no set is large enough.
    """
    known = read_signals(signals)
    row = {pair: i for i, pair in enumerate(known.pair_id)}
    kept = [(pair, held) for pair, held in cache.pairs.rows() if pair in row and pair not in without]
    if not kept:
        raise InputError(
            "none of the cached pairs is in the signal", where=signals, remedy="make both of the same votes"
        )
    place = np.array([row[pair] for pair, _ in kept])
    nodes: dict[tuple[str, str], int] = {}
    shown = [(held.prompt, (held.image_0, held.image_1)) for _, held in kept]
    ends = np.array([[nodes.setdefault((prompt, image), len(nodes)) for image in both] for prompt, both in shown])
    ahead = known.margin_0[place].astype(np.float64)  # how much better image 0 is than image 1
    scores, component = _scores(ends, ahead, len(nodes), antisymmetric=known.margin_1[place], where=signals)
    sets: dict[int, list[tuple[float, str]]] = {}
    prompts: dict[int, str] = {}
    for (prompt, image), node in nodes.items():
        sets.setdefault(int(component[node]), []).append((-scores[node], image))
        prompts[int(component[node])] = prompt
    large = {number: held for number, each in sets.items() if len(held := _distinct(each)) >= size}
    if not large:
        most = max(len(_distinct(each)) for each in sets.values())
        what = f"the largest of {len(sets)} sets of images that its pairs connect has {most}"
        raise InputError(what, where=signals, remedy=f"set data.list_size below {size}")
    left = len(nodes) - sum(map(len, large.values()))
    if left:
        say(f"{left} of {len(nodes)} images are left out: in sets of fewer than {size}, or of the score of another one")
    return ListTable(
        list_id=tuple(
            f"{prompts[number][:32]}:{min(image for _, image in held)[:16]}" for number, held in large.items()
        ),
        prompt=tuple(prompts[number] for number in large),
        images=tuple(tuple(image for _, image in held) for held in large.values()),
        bucket=(kept[0][1].bucket,) * len(large),
        size=size,
        about=replace(about_signals(known), images=len(nodes) - left, pairs=len(kept)),
    )


def _distinct(held: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Images of a set from the best to the worst, of those of one score, up to rounding, the first by name."""
    found: list[tuple[float, str]] = []
    for score, image in sorted(held):
        if not found or score - found[-1][0] > SLACK * max(1.0, abs(score)):
            found.append((score, image))
        elif image < found[-1][1]:
            found[-1] = (found[-1][0], image)
    return found


def _scores(
    ends: npt.NDArray[np.int64], ahead: npt.NDArray[np.float64], count: int, *, antisymmetric: npt.ArrayLike, where: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(score [count] up to a constant a component, component [count]) of images whose pairs differ by `ahead`."""
    wrong = ~np.isclose(np.asarray(antisymmetric), -ahead, rtol=SLACK, atol=SLACK)
    scores = np.zeros(count)
    _, component = csgraph.connected_components(_graph(ends, count), directed=False)
    firsts = np.unique(component, return_index=True)[1]
    between = {(a, b): value for (a, b), value in zip(map(tuple, ends.tolist()), ahead.tolist(), strict=True)}
    between |= {(b, a): -value for (a, b), value in list(between.items())}
    joined = _graph(np.concatenate([ends, np.stack([np.full_like(firsts, count), firsts], axis=1)]), count + 1)
    order, before = csgraph.breadth_first_order(joined, count, directed=False)
    for node in order[1 + len(firsts) :].tolist():  # after the node that joins the components, and their first ones
        scores[node] = scores[before[node]] + between[node, int(before[node])]
    wrong |= ~np.isclose(scores[ends[:, 0]] - scores[ends[:, 1]], ahead, rtol=SLACK, atol=SLACK)
    if not ahead.any():
        raise InputError("its margins are all zero and rank nothing", where=where, remedy=REMEDY)
    if wrong.any():
        what = f"{int(wrong.sum())} of its {len(ends)} margins are no differences of scores of images"
        raise InputError(what, where=where, remedy=REMEDY)
    return scores, component


def _graph(ends: npt.NDArray[np.int64], count: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ListSource:
    """Draws of lists: of a set with more images than a list has, a visit takes some at random."""

    drawing: Drawing
    table: ListTable

    def order(self, *, step: int, per_step: int) -> list[Draw]:
        """The draws of an optimiser step."""
        return pair_order(self.drawing.seed, count=len(self.table.list_id), step=step, per_step=per_step)

    def batch(self, drawn: Sequence[Draw]) -> ListBatch:
        """The lists of some draws."""
        table, drawing = self.table, self.drawing
        rows, visits = [draw.index for draw in drawn], [draw.visit for draw in drawn]
        ids = [table.list_id[i] for i in rows]
        chosen = [self._chosen(draw) for draw in drawn]
        sides = {f"i{k}": [images[k] for images in chosen] for k in range(table.size)}
        found, sizes = drawing.latents(sides, ids=ids, visits=visits, bucket=table.bucket[rows[0]])
        prompts = drawing.prompts([table.prompt[i] for i in rows], ids=ids, visits=visits)
        conditions = [drawing.adapter.condition(prompts, each) for each in sizes]
        return ListBatch(
            list_id=tuple(ids),
            visit=tuple(visits),
            x0=torch.stack(found),
            cond={name: torch.cat([each[name] for each in conditions]) for name in conditions[0]},
        )

    def _chosen(self, draw: Draw) -> list[str]:
        images, size = self.table.images[draw.index], self.table.size
        if len(images) == size:
            return list(images)
        draws = rng.numpy_generator(self.drawing.seed, "list", self.table.list_id[draw.index], draw.visit)
        return [images[i] for i in sorted(draws.choice(len(images), size, replace=False).tolist())]


def list_loss(batch: ListBatch, *, t: Tensor, adapter: Denoiser, method: Method, seed: int, calls: Calls) -> Output:
    """The losses of some lists, each at one level t [B] with one noise for all its images."""
    path, (size, count) = adapter.path, batch.x0.shape[:2]
    t = t.to(batch.x0.device, non_blocking=True)
    eps = rng.normals(seed, "noise", batch.list_id, batch.visit, batch.x0.shape[2:]).to(t.device, non_blocking=True)
    target = torch.stack([path.target(x0, eps, t) for x0 in batch.x0])
    x = torch.cat([path.add_noise(x0, eps, t) for x0 in batch.x0])
    levels = t.repeat(size)
    with torch.no_grad():
        known = mean_square(adapter.reference(x, levels, batch.cond), target.flatten(0, 1)).view(size, count)
    calls["reference"] += len(x)
    if adapter.drawn is not None:
        adapter.drawn.tell(batch.list_id, batch.visit)
    policy = wide(adapter.policy(x, levels, batch.cond)).unflatten(0, (size, count))
    calls["policy"] += len(x)
    scale = path.error_scale(t, method.loss_space)
    pred = ListPrediction(policy=policy, target=target, ref_error=known, error_scale=scale)
    return method.objective.function(pred, **method.options), t
