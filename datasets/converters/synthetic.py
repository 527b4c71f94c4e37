"""The demo's data: generated vessel trees on fundus-like and angiogram-like backgrounds, with exact masks."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from datasets.converters.drawing import Rng, clouds, stroke_coverage
from datasets.converters.plan import Case, Pair, Plan
from utils.errors import ConfigError

LABELS = ("Vessel", "Disc")
_TRAIN_SHARE, _VAL_SHARE = 2 / 3, 1 / 6
_MIN_RADIUS = 0.45  # in pixels; a branch that is thinner ends

Stroke = tuple[np.ndarray, np.ndarray]  # points (n, 2) as (x, y), radii (n,), in pixels


def convert(source: Path | None, *, seed: int, count: int = 48, size: int = 256, labels: int = 1) -> Plan:
    """Draw `count` images of `size` x `size`, alternately fundus-like and angiogram-like; 2/3 train, 1/6 val, 1/6 test.

    With one label, masks are 0/255 vessels. With two they hold 1 for vessels and 2 for a disc: the optic disc of the
    fundus or a round marker in the angiogram. Where a vessel crosses the disc, the label is 1. Image i depends only on
    (seed, i).

    Raises: ConfigError if a source is given, or for an option out of its range.
    """
    if source is not None:
        raise ConfigError("prepare synthetic draws its images and takes no --source")
    if count < 6 or size < 64 or labels not in (1, 2):
        raise ConfigError("prepare synthetic needs --count of at least 6, --size of at least 64, --labels of 1 or 2")
    train, val = round(count * _TRAIN_SHARE), round(count * _VAL_SHARE)
    cases = []
    for i in range(count):
        kind = "fundus" if i % 2 == 0 else "angiogram"
        split = "train" if i < train else "val" if i < train + val else "test"
        cases.append(Case(f"{kind}_{i:04d}", partial(_draw, seed, i, size, labels), split))
    return Plan(cases)


def _draw(seed: int, index: int, size: int, labels: int) -> Pair:
    image, mask = draw_vessels(np.random.default_rng([seed, index]), size, fundus=index % 2 == 0)
    return image, mask if labels == 2 else mask == 1


def draw_vessels(rng: Rng, size: int, fundus: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image (size, size, 3) uint8 and its labels (size, size) uint8: 0 background, 1 vessel, 2 disc.

    Image and labels use the same coverage: a pixel is vessel if vessels cover at least half of it.
    """
    ground, disc, view, roots = (_fundus if fundus else _angiogram)(rng, size)
    strokes = [stroke for root in roots for stroke in _grow(rng, size, *root)]
    # Thin vessels are fainter, because less blood absorbs the light.
    depth = np.zeros((size, size))
    vessels = np.zeros((size, size))
    for points, radii in strokes:
        covered = stroke_coverage(size, points, 2 * radii)
        strength = np.clip(0.45 + 0.55 * radii.mean() / (0.012 * size), 0.45, 1)
        depth = np.maximum(depth, covered * strength)
        vessels = np.maximum(vessels, covered)
    contrast = rng.uniform(0.25, 0.5) if fundus else rng.uniform(0.3, 0.6)
    absorbed = np.array([0.45, 1.0, 0.6]) if fundus else np.ones(3)
    image = ground * (1 - contrast * depth[..., None] * absorbed)
    image = gaussian_filter(image, (rng.uniform(0.4, 0.9),) * 2 + (0,))
    grain = rng.standard_normal((size, size, 3 if fundus else 1)) * rng.uniform(0.008, 0.02 if fundus else 0.045)
    image = np.where(view[..., None], image + grain, ground * 0.05)
    labels = np.zeros((size, size), np.uint8)
    labels[disc & view] = 2
    labels[(vessels >= 0.5) & view] = 1
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), labels


Root = tuple[np.ndarray, float, float]  # start (x, y), heading in radians, radius; pixels
Ground = tuple[np.ndarray, np.ndarray, np.ndarray, list[Root]]


def _fundus(rng: Rng, size: int) -> Ground:
    """Draw a retina in its round field of view: ground, optic disc, view, and the roots of the arcades at the disc."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    radius = np.hypot(x - size / 2, y - size / 2)
    view = radius < rng.uniform(0.46, 0.49) * size
    side = rng.choice([-1, 1])
    centre = np.array([0.5 + side * rng.uniform(0.24, 0.32), rng.uniform(0.44, 0.56)]) * size
    from_disc = np.hypot(x - centre[0], (y - centre[1]) * 0.9)
    disc_radius = rng.uniform(0.05, 0.075) * size
    disc = from_disc < disc_radius
    light = rng.uniform(0.75, 1.05) * (1 - 0.35 * (radius / (size / 2)) ** 2) + 0.06 * clouds(rng, size, 3)
    fovea = np.exp(-((np.hypot(x - centre[0] + side * 0.42 * size, y - centre[1]) / (0.08 * size)) ** 2))
    light = light * (1 - 0.3 * fovea) + 0.02 * clouds(rng, size, 25)
    tint = np.array([0.82, rng.uniform(0.36, 0.5), rng.uniform(0.12, 0.25)])
    glow = 1 / (1 + np.exp((from_disc - disc_radius) / (0.12 * disc_radius)))
    ground = light[..., None] * tint + glow[..., None] * np.array([0.2, 0.38, 0.3]) * rng.uniform(0.6, 1)
    thickest = rng.uniform(0.011, 0.016) * size
    away = np.pi if side > 0 else 0.0
    headings = [-1.25, 1.25, -0.75, 0.7, -2.3, 2.3]
    roots = []
    for heading in headings[: int(rng.integers(4, 7))]:
        angle = away + heading + rng.normal(0, 0.15)
        start = centre + 0.4 * disc_radius * np.array([np.cos(angle), np.sin(angle)])
        roots.append((start, angle, thickest * (rng.uniform(0.75, 1) if abs(heading) < 2 else 0.55)))
    return ground, disc, view, roots


def _angiogram(rng: Rng, size: int) -> Ground:
    """Draw an X-ray projection: grey clouds, rib-like bands, a marker, a full view, and roots near the upper border."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    light = rng.uniform(0.5, 0.8) + 0.07 * clouds(rng, size, 2) + 0.05 * clouds(rng, size, 6)
    angle, period = rng.uniform(-0.6, 0.6), rng.uniform(0.22, 0.4) * size
    bend = 0.15 * size * np.sin(np.pi * x / size + rng.uniform(0, np.pi))
    ribs = np.sin(2 * np.pi * (y * np.cos(angle) + x * np.sin(angle) + bend) / period)
    light = light - rng.uniform(0.02, 0.07) * np.clip(ribs * 2, 0, 1)
    diaphragm = 1 / (1 + np.exp(-(y - rng.uniform(0.8, 1.2) * size + 0.2 * x) / (0.02 * size)))
    light = light * (1 - 0.3 * diaphragm)
    centre, marker = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.025, 0.05) * size
    disc = np.hypot(x - centre[0], y - centre[1]) < marker
    light = np.where(disc, light + 0.18, light)
    start = np.array([rng.uniform(0.25, 0.75), rng.uniform(0.02, 0.15)]) * size
    heading = np.pi / 2 + rng.normal(0, 0.5)
    thickest = rng.uniform(0.012, 0.02) * size
    roots = [(start, heading - 0.5, thickest), (start, heading + 0.5, 0.85 * thickest)]
    ground = np.broadcast_to(light[..., None], (size, size, 3))
    return ground, disc, np.ones((size, size), bool), roots[: int(rng.integers(1, 3))]


def _grow(rng: Rng, size: int, start: np.ndarray, heading: float, radius: float) -> Iterator[Stroke]:
    """Yield a vessel and all its branches: smooth random walks that taper and fork.

    A vessel of radius r forks by Murray's law, r^3 = r1^3 + r2^3 (J. Gen. Physiol. 1926).
    """
    step = 0.01 * size
    turn = rng.normal(0, 0.02)
    points, radii = [start], [radius]
    until_fork = int(rng.integers(5, 16))
    while radius > _MIN_RADIUS and -0.05 * size < min(points[-1]) and max(points[-1]) < 1.05 * size:
        turn = 0.9 * turn + rng.normal(0, 0.035)
        heading += turn
        points.append(points[-1] + step * np.array([np.cos(heading), np.sin(heading)]))
        radius *= 0.99
        radii.append(radius)
        if len(points) > until_fork:
            share = rng.uniform(0.12, 0.5)
            side = rng.choice([-1, 1])
            branch = radius * share ** (1 / 3)
            yield from _grow(rng, size, points[-1], heading + side * rng.uniform(0.45, 1.1), branch * 0.9)
            radius *= (1 - share) ** (1 / 3)
            heading -= side * rng.uniform(0, 0.25)
            until_fork = len(points) + int(rng.integers(8, 20))
    if len(points) > 2:
        yield np.array(points), np.array(radii)
