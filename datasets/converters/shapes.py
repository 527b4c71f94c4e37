"""The pretraining set of nano SAM: generated blobs, textures and curves on varied backgrounds, without vessel trees."""

from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from datasets.converters.drawing import Rng, clouds, coverage, stroke_coverage
from datasets.converters.plan import Case, Pair, Plan
from utils.errors import ConfigError

LABELS = ("Blob", "Texture", "Curve")
_CYCLE = 40  # one of 40 images is for validation, one for testing


def convert(source: Path | None, *, seed: int, count: int = 5000, size: int = 128, labels: int = 1) -> Plan:
    """Draw `count` images of `size` x `size` pixels; one in forty is for validation, one for testing.

    With one label, masks are 0/255 curves, and blobs and textures are background. With three labels, masks hold 1, 2, 3
    in the order of LABELS. Image i depends only on (seed, i), not on the number of processes.

    Raises: ConfigError if a source is given, or for an option out of its range.
    """
    if source is not None:
        raise ConfigError("prepare shapes draws its images and takes no --source")
    if count < _CYCLE or size < 32 or labels not in (1, 3):
        raise ConfigError(
            f"prepare shapes needs --count of at least {_CYCLE}, --size of at least 32, --labels of 1 or 3"
        )
    held_out = {_CYCLE // 2 - 1: "val", _CYCLE - 1: "test"}
    return Plan(
        [
            Case(f"shape_{i:05d}", partial(_draw, seed, i, size, labels), held_out.get(i % _CYCLE, "train"))
            for i in range(count)
        ]
    )


def _draw(seed: int, index: int, size: int, labels: int) -> Pair:
    image, mask = draw_shapes(np.random.default_rng([seed, index]), size)
    return image, mask if labels == 3 else mask == 3


def draw_shapes(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image (size, size, 3) uint8 and its labels (size, size) uint8: 0 background, 1 blob, 2 texture, 3 curve.

    Objects drawn later hide those drawn earlier, in the image and in the labels.
    """
    image = _ground(rng, size)
    labels = np.zeros((size, size), np.uint8)
    many = rng.random() < 0.5
    kinds = [1] * int(rng.integers(1, 4)) + [2] * int(rng.integers(1, 3))
    kinds += [3] * int(rng.integers(6, 18) if many else rng.integers(2, 6))
    contrast = _curve_contrast(rng)
    # Most curves of an image share a colour, as the structures of a medical image do.
    for kind in rng.permutation(kinds):
        if kind == 3:
            covered = _curve(rng, size, thin=many)
            change = contrast if rng.random() < 0.7 else _curve_contrast(rng)
            painted = image + change * rng.uniform(0.6, 1.2)
        else:
            covered = _region(rng, size)
            painted = _fill(rng, image, covered) if kind == 1 else _add_texture(rng, image, covered)
        image += covered[..., None] * (painted - image)
        labels[covered >= 0.5] = kind
    image, visible = _degrade(rng, image)
    return image, labels * visible


def _ground(rng: Rng, size: int) -> np.ndarray:
    """Draw a background (size, size, 3) float: a base colour with cloudy noise of several scales."""
    base = rng.uniform(0.15, 0.85, 3)
    palette = rng.random()
    if palette < 0.4:
        base[:] = base.mean()
    elif palette < 0.6:
        base = np.array([0.75, 0.4, 0.2]) * rng.uniform(0.6, 1.2)
    image = np.broadcast_to(base, (size, size, 3)).copy()
    for cells in (2, 5, 12, 30):
        amplitude = rng.uniform(0, 0.25) * 1.6 / cells**0.5
        tint = rng.uniform(0.5, 1.0, 3) if palette >= 0.4 else np.ones(3)
        image += amplitude * 0.4 * clouds(rng, size, cells)[..., None] * tint
    if rng.random() < 0.15:
        image += rng.uniform(0.01, 0.05) * _texture(rng, size)[..., None]
    return image


def _texture(rng: Rng, size: int) -> np.ndarray:
    """Draw a texture (size, size) in -1..1: stripes, checks, grain or spots."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 24)
    along = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, 6) * clouds(rng, size, 3)
    across = -x * np.sin(angle) + y * np.cos(angle)
    kind = rng.integers(4)
    if kind == 0:
        return np.sin(2 * np.pi * along / period)
    if kind == 1:
        return np.sign(np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period))
    if kind == 2:
        grain = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(0.5, 2))
        return np.clip(grain / (grain.std() * 1.5), -1, 1)
    return np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period)


def _fill(rng: Rng, image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return the image in another colour, flat or shaded, to be used where `covered`."""
    change = rng.choice([-1, 1]) * rng.uniform(0.08, 0.4) * rng.uniform(0.5, 1, 3)
    shade = rng.uniform(0, 0.1) * clouds(rng, len(image), 3)[..., None]
    mean = image[covered > 0.5].mean(0) if (covered > 0.5).any() else image.mean((0, 1))
    mixed = rng.uniform(0, 1)
    return mixed * mean + (1 - mixed) * image + change + shade


def _add_texture(rng: Rng, image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return the image with a texture that keeps its mean where `covered`, so only the pattern shows the object."""
    inside = covered > 0.5
    texture = _texture(rng, len(image))
    if inside.any():
        texture = texture - texture[inside].mean()
    return image + rng.uniform(0.08, 0.25) * texture[..., None] * rng.uniform(0.6, 1, 3)


def _curve_contrast(rng: Rng) -> np.ndarray:
    strength = rng.uniform(0.12, 0.3) if rng.random() < 0.5 else rng.uniform(0.3, 0.6)
    return rng.choice([-1, -1, -1, 1]) * strength * rng.uniform(0.5, 1, 3)


def _region(rng: Rng, size: int) -> np.ndarray:
    """Return the coverage (size, size) in 0..1 of a filled shape: an ellipse, a smooth blob or a polygon."""
    centre, radius = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0.06, 0.25) * size
    kind = rng.integers(3)
    corners = int(rng.integers(3, 8)) if kind == 2 else 64
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 2 * np.pi)
    radii = np.full(corners, radius)
    if kind == 1:
        for wave in range(2, 6):
            radii += radius * rng.uniform(0, 0.5 / wave) * np.sin(wave * angles + rng.uniform(0, 2 * np.pi))
    elif kind == 2:
        radii *= rng.uniform(0.6, 1.2, corners)
    outline = np.stack([np.cos(angles) * radii, np.sin(angles) * radii * rng.uniform(0.4, 1)], 1)
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners_xy = outline @ rotation + centre
    return coverage(size, lambda pen, scale: pen.polygon([(x, y) for x, y in scale * corners_xy], fill=255))


def _curve(rng: Rng, size: int, thin: bool) -> np.ndarray:
    """Return the coverage (size, size) in 0..1 of an open stroke, 1..10 pixels wide, of constant or varying width."""
    points = _CURVES[rng.integers(len(_CURVES))](rng) * size
    width = np.exp(rng.uniform(np.log(1.0), np.log(4.0 if thin else 10.0)))
    drift = np.linspace(1, rng.uniform(0.4, 1), len(points)) if rng.random() < 0.5 else np.ones(len(points))
    widths = np.maximum(width * drift, 1.0)

    return stroke_coverage(size, points, widths)


# Curves as points (n, 2) in units of the image's side. They may leave the image.


def _bezier(rng: Rng) -> np.ndarray:
    a, b, c, d = rng.uniform(-0.1, 1.1, (4, 2))
    t = np.linspace(0, 1, 60)[:, None]
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def _arc(rng: Rng) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.5, 5), 60)
    radii = rng.uniform(0.1, 0.6) * np.array([1, rng.uniform(0.5, 1)])
    return rng.uniform(0, 1, 2) + radii * np.stack([np.cos(angle), np.sin(angle)], 1)


def _spiral(rng: Rng) -> np.ndarray:
    angle = np.linspace(0, rng.uniform(4, 14), 120)
    radius = np.linspace(0.02, rng.uniform(0.1, 0.4), 120)[:, None]
    return rng.uniform(0.1, 0.9, 2) + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _zigzag(rng: Rng) -> np.ndarray:
    corners = int(rng.integers(3, 9))
    along = np.linspace(0, rng.uniform(0.4, 1.1), corners)
    across = rng.uniform(0.02, 0.12) * np.where(np.arange(corners) % 2, 1, -1)
    turn = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(turn), np.sin(turn)])
    return rng.uniform(0, 1, 2) + along[:, None] * direction + across[:, None] * direction[::-1] * [1, -1]


def _wander(rng: Rng) -> np.ndarray:
    steps, length = int(rng.integers(20, 120)), 0.012
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(gaussian_filter(rng.normal(0, 0.6, steps), 2))
    return rng.uniform(-0.05, 1.05, 2) + np.cumsum(length * np.stack([np.cos(heading), np.sin(heading)], 1), 0)


_CURVES = (_bezier, _arc, _spiral, _zigzag, _wander, _wander, _wander)


def _degrade(rng: Rng, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add uneven light, a vignette or a dark surround, blur, noise and sometimes inversion.

    Returns: the image as uint8, and (size, size) bool, which is False in the dark surround, where nothing is visible.
    """
    size = len(image)
    image = image * (1 + rng.uniform(0, 0.15) * clouds(rng, size, 2)[..., None])
    y, x = (np.mgrid[:size, :size] - size / 2) / (size / 2)
    radius = np.hypot(x - rng.uniform(-0.2, 0.2), y - rng.uniform(-0.2, 0.2))[..., None]
    light = np.ones_like(radius)
    surround = rng.random()
    if surround < 0.25:
        light = np.clip(1 - rng.uniform(0.2, 0.7) * radius**2, 0, 1)
    elif surround < 0.45:
        light = np.clip((rng.uniform(0.9, 1.2) - radius) * 40, 0.02, 1)
    image = image * light
    if rng.random() < 0.05:
        image = 1 - image
    image = gaussian_filter(image, (*[rng.uniform(0, 0.9)] * 2, 0))
    image += rng.uniform(0, 0.04) * rng.standard_normal(image.shape[:2] + ((3,) if rng.random() < 0.5 else (1,)))
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), light[..., 0] > 0.1
