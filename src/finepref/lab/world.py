"""A world of 32x32 pictures: one coloured shape on a coloured background, and what makes a picture good.

Legend: N images, K valid placements of a shape (centre x radius), P = 32*32 pixels; colours are in [0, 1].
Everything here is a function of its arguments; nothing is learned.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finepref.core.errors import InputError, nearest

Array = NDArray[np.float32]

SIZE = 32
RADII = tuple(range(6, 13))
DULL = 0.35
"""Least vividness of a valid picture: 0 is grey of equal luminance, 1 is the named colour."""

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "diamond")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (228, 36, 40),
    "orange": (250, 130, 20),
    "yellow": (252, 218, 40),
    "lime": (150, 226, 44),
    "green": (24, 150, 66),
    "cyan": (30, 200, 214),
    "blue": (36, 92, 236),
    "purple": (136, 52, 200),
    "pink": (250, 96, 176),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (26, 26, 32),
    "white": (246, 246, 242),
    "gray": (130, 132, 138),
    "navy": (28, 40, 92),
    "brown": (98, 66, 46),
    "beige": (226, 208, 172),
    "mint": (178, 228, 204),
    "lavender": (204, 192, 236),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What a prompt asks for."""

    colour: str
    shape: str
    background: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The true quality of N images and its parts; arrays of shape [N], float64.

    rms: distance to the best valid rendering, in [0, 1]. size, centred, vivid: the taste, each in [0, 1].
    quality: in units of a voter's noise.
    """

    quality: NDArray[np.float64]
    rms: NDArray[np.float64]
    size: NDArray[np.float64]
    centred: NDArray[np.float64]
    vivid: NDArray[np.float64]


TASTE = {"size": 1.3, "centred": 0.7, "vivid": 1.3}
"""What the voters like beyond the prompt, in units of a voter's noise; the base model has no such leaning."""
RMS_UNIT = 0.09
"""A picture that is off by this much (root mean square over pixels and channels) loses one unit of quality."""


def caption(scene: Scene) -> str:
    """`a red circle on a blue background`, with the article that the words need."""
    article = {True: "an", False: "a"}
    return (
        f"{article[scene.colour[0] in 'aeiou']} {scene.colour} {scene.shape} on "
        f"{article[scene.background[0] in 'aeiou']} {scene.background} background"
    )


@functools.cache
def scenes() -> dict[str, Scene]:
    """Every prompt of the world with what it asks for, in a fixed, well mixed order."""
    every = [Scene(c, s, b) for c in COLOURS for s in SHAPES for b in BACKGROUNDS]
    named = {caption(scene): scene for scene in every}
    return dict(sorted(named.items(), key=lambda item: hashlib.blake2b(item[0].encode()).digest()))


@functools.cache
def prompts(split: str = "train") -> tuple[str, ...]:
    """The prompts of a split, in a fixed and well mixed order (a prefix is a fair sample).

    A combination is in "train" when the sum of its three indices is even, so that both splits hold every word and
    every pair of words, and share no combination. Votes are cast on "train" alone.

    Args:
        split: "train" (252 prompts), "eval" (252) or "all" (504).

    Raises:
        InputError: unknown split.
    """
    if split not in ("train", "eval", "all"):
        raise InputError(f"unknown prompt split {split!r}", remedy=nearest(split, ("train", "eval", "all")))
    colours, shapes, backgrounds = list(COLOURS), list(SHAPES), list(BACKGROUNDS)

    def parity(scene: Scene) -> int:
        place = shapes.index(scene.shape) + colours.index(scene.colour) + backgrounds.index(scene.background)
        return place % 2

    wanted = {"train": (0,), "eval": (1,), "all": (0, 1)}[split]
    return tuple(text for text, scene in scenes().items() if parity(scene) in wanted)


def scene_of(prompt: str) -> Scene:
    """What a prompt asks for.

    Raises:
        InputError: the prompt is not of this world.
    """
    scene = scenes().get(prompt)
    if scene is None:
        raise InputError(f"the lab world has no prompt {prompt!r}", remedy=nearest(prompt, scenes()))
    return scene


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points of the unit square [-1, 1]^2 (y down) lie in a shape of radius 1."""
    if shape == "circle":
        return x**2 + y**2 <= 1.0
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.86
    if shape == "triangle":
        return (y <= 0.84) & (abs(x) <= (y + 1.0) * 0.56)
    if shape == "heart":
        u, v = x * 1.18, 0.18 - y * 1.14
        return (u**2 + v**2 - 1.0) ** 3 - u**2 * v**3 <= 0.0
    if shape == "ring":
        distance = np.sqrt(x**2 + y**2)
        return (distance <= 1.0) & (distance >= 0.52)
    if shape == "diamond":
        return abs(x) / 0.8 + abs(y) <= 1.0
    # star: distance to the edge of the nearest of five spikes
    angle = np.arctan2(x, -y)
    spike = 2.0 * np.pi / 5.0
    folded = abs((angle + spike / 2.0) % spike - spike / 2.0)
    radius = np.sqrt(x**2 + y**2)
    px, py = radius * np.cos(folded), radius * np.sin(folded)
    inner = 0.46 * np.array([np.cos(spike / 2.0), np.sin(spike / 2.0)])
    return (1.0 - px) * inner[1] - py * (1.0 - inner[0]) >= 0.0


@dataclass(frozen=True, slots=True)
class Placements:
    """Every valid placement of a shape: centre on whole pixels, radius whole, a rim of one pixel left free.

    mask, light: [K,P] coverage in [0, 1], and coverage times shading. centre: [K,2] (x, y). radius: [K].
    """

    mask: Array
    light: Array
    centre: Array
    radius: Array


@functools.cache
def placements(shape: str) -> Placements:
    """The K valid placements of a shape, antialiased by 8x8 samples a pixel."""
    fine = 8
    masks, lights, centres, radii = [], [], [], []
    for r in RADII:
        axis = (np.arange(2 * SIZE * fine) + 0.5) / fine - SIZE
        y, x = np.meshgrid(axis / r, axis / r, indexing="ij")
        inside = _inside(shape, x, y).reshape(2 * SIZE, fine, 2 * SIZE, fine).mean(axis=(1, 3))
        coarse = (np.arange(2 * SIZE) + 0.5 - SIZE) / r
        shade = np.clip(0.88 - 0.12 * (coarse[None, :] + coarse[:, None]), 0.0, 1.0)
        for cy in range(r + 1, SIZE - r):
            for cx in range(r + 1, SIZE - r):
                window = slice(SIZE - cy, 2 * SIZE - cy), slice(SIZE - cx, 2 * SIZE - cx)
                masks.append(inside[window].ravel())
                lights.append((inside[window] * shade[window]).ravel())
                centres.append((cx, cy))
                radii.append(r)
    arrays = (np.asarray(part, dtype=np.float32) for part in (masks, lights, centres, radii))
    return Placements(*arrays)


def _sky() -> Array:
    """[P] the background's brightness: a soft fall from top to bottom."""
    return np.repeat(np.linspace(1.0, 0.86, SIZE, dtype=np.float32), SIZE)


def _rgb(table: dict[str, tuple[int, int, int]], name: str) -> NDArray[np.float64]:
    return np.asarray(table[name], dtype=np.float64) / 255.0


def _grey(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """The grey of equal luminance (Rec. 601)."""
    return np.full(3, colour @ np.array([0.299, 0.587, 0.114]))


def render(prompt: str, *, placement: int, vivid: float) -> NDArray[np.uint8]:
    """Draw a prompt: one of the K placements of its shape, with a vividness in [DULL, 1]. Returns [32,32,3] uint8."""
    scene = scene_of(prompt)
    place = placements(scene.shape)
    named = _rgb(COLOURS, scene.colour)
    colour = _grey(named) + vivid * (named - _grey(named))
    behind = _sky()[:, None] * _rgb(BACKGROUNDS, scene.background)
    picture = behind * (1.0 - place.mask[placement][:, None]) + place.light[placement][:, None] * colour
    return np.round(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8).reshape(SIZE, SIZE, 3)


def draw(prompt: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """A random valid picture: radius uniform, then centre uniform, then vividness uniform. Returns [32,32,3] uint8."""
    radius = placements(scene_of(prompt).shape).radius
    fitting = np.flatnonzero(radius == generator.choice(RADII))
    return render(prompt, placement=int(generator.choice(fitting)), vivid=float(generator.uniform(DULL, 1.0)))


def judge(images: NDArray[np.uint8], prompts: Sequence[str]) -> Judgement:
    """The true quality of images for their prompts.

        quality = 1.3 size + 0.7 centred + 1.3 vivid - rms / 0.09

    rms is the distance to the nearest valid rendering: least squares over every placement, and over the vividness
    in closed form. size, centred and vivid are read off that rendering, each in [0, 1].

    Args:
        images: [N,32,32,3] uint8.
        prompts: N prompts of this world.
    """
    if images.shape[1:] != (SIZE, SIZE, 3) or len(images) != len(prompts):
        raise InputError(f"expected {len(prompts)} images of {SIZE}x{SIZE}x3, got {images.shape}")
    parts = np.zeros((4, len(prompts)))
    asked = [scene_of(prompt) for prompt in prompts]
    for shape in SHAPES:
        rows = np.array([i for i, scene in enumerate(asked) if scene.shape == shape], dtype=int)
        for start in range(0, len(rows), 256):
            some = rows[start : start + 256]
            parts[:, some] = _best_fit(images[some], [asked[i] for i in some], placements(shape))
    rms, size, centred, vivid = parts
    quality = TASTE["size"] * size + TASTE["centred"] * centred + TASTE["vivid"] * vivid - rms / RMS_UNIT
    return Judgement(quality, rms, size, centred, vivid)


def _best_fit(images: NDArray[np.uint8], asked: Sequence[Scene], place: Placements) -> NDArray[np.float64]:
    """[4,N] rms, size, centred, vivid of the nearest valid rendering; all scenes have the shape of `place`.

    A rendering is behind*(1-mask) + light*colour(v). With D = image - behind the squared distance is
    |D|^2 - 2<D, T> + |T|^2, T = light*colour(v) - mask*behind, whose dot products are matrix products with the K
    masks, and which is quadratic in v. The search is in float32; the winner is measured again in float64.
    """
    n, sky = len(images), _sky()
    named = np.stack([_rgb(COLOURS, s.colour) for s in asked])
    grey = np.stack([_grey(colour) for colour in named])
    ground = np.stack([_rgb(BACKGROUNDS, s.background) for s in asked])
    behind = sky[None, :, None] * ground[:, None, :]
    difference = images.reshape(n, -1, 3) / 255.0 - behind
    d_light = np.stack([difference[:, :, c].astype(np.float32) @ place.light.T for c in range(3)], axis=-1)
    d_mask = (difference * behind).sum(-1).astype(np.float32) @ place.mask.T
    light2 = (place.light**2).sum(1)
    cross = (place.light * place.mask) @ sky
    mask2 = place.mask**2 @ sky**2

    def products(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        return (first * second).sum(-1)[:, None]

    step = named - grey
    slope = (d_light * step[:, None, :]).sum(-1) - (
        products(grey, step) * light2[None, :] - products(ground, step) * cross[None, :]
    )
    v = np.clip(slope / (products(step, step) * light2[None, :]), DULL, 1.0)
    at_grey = (difference**2).sum((1, 2))[:, None] - 2.0 * ((d_light * grey[:, None, :]).sum(-1) - d_mask)
    at_grey += products(grey, grey) * light2 - 2.0 * products(grey, ground) * cross + products(ground, ground) * mask2
    error = at_grey - 2.0 * v * slope + v**2 * products(step, step) * light2[None, :]
    best = error.argmin(1)
    mask, light = place.mask[best].astype(np.float64)[:, :, None], place.light[best].astype(np.float64)[:, :, None]
    rest = difference + mask * behind - light * grey[:, None, :]
    pull = light * step[:, None, :]
    exact = np.clip((rest * pull).sum((1, 2)) / (pull**2).sum((1, 2)), DULL, 1.0)
    rms = np.sqrt(((rest - exact[:, None, None] * pull) ** 2).mean((1, 2)))
    size = (place.radius[best] - RADII[0]) / (RADII[-1] - RADII[0])
    far = np.linalg.norm(place.centre[best] - SIZE / 2, axis=1) / np.hypot(9.0, 9.0)
    vivid = (exact - DULL) / (1.0 - DULL)
    return np.stack([rms, size, 1.0 - far, vivid])
