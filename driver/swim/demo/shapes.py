"""Scenes of the demo: coloured, patterned shapes that move over a plain background, and their exact masks."""

import math
from dataclasses import dataclass, field

import numpy as np

COLOURS = {
    "red": (225, 45, 45),
    "orange": (245, 150, 40),
    "yellow": (240, 225, 60),
    "green": (60, 185, 75),
    "cyan": (70, 215, 225),
    "blue": (55, 90, 230),
    "purple": (145, 60, 190),
    "pink": (250, 150, 195),
}
INK = (20, 20, 20)
SHAPES = ("circle", "square", "triangle", "diamond")
PATTERNS = ("plain", "striped", "dotted", "checked")

_MAX_PLACE_TRIES = 200


def _setting(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ClipSettings:
    """What a clip looks like. Areas are shares of the frame; speed is in pixels per frame.

    ``distinct_patterns=False`` draws each object's pattern by itself: then the patterns of a clip tell something
    about every object in it, and a model can learn to name patterns before it can find objects.
    """

    size_px: int = _setting(168, "side of a square frame, in pixels")
    frames: int = _setting(4, "frames of a clip")
    fps: int = _setting(2, "frames a second")
    objects: int = _setting(3, "objects of a clip")
    min_area: float = _setting(0.06, "smallest object, as a share of the frame")
    max_area: float = _setting(0.095, "largest object, as a share of the frame")
    max_speed_px: float = _setting(4.0, "fastest object, in pixels per frame")
    distinct_patterns: bool = _setting(False, "no two objects of a clip share a pattern")
    annotate_every: int = _setting(2, "frames from one mask to the next")
    questions_per_clip: int = _setting(3, "objects of a clip that are asked for")

    def __post_init__(self) -> None:
        most = min(len(COLOURS), len(PATTERNS))
        if not 2 <= self.objects <= most:
            raise ValueError(f"objects must be 2 to {most} (colours and patterns in a clip differ), not {self.objects}")
        if not 1 <= self.questions_per_clip <= self.objects:
            raise ValueError(f"questions_per_clip must be 1 to objects={self.objects}, not {self.questions_per_clip}")
        if not 0 < self.min_area <= self.max_area <= 0.1:
            raise ValueError(f"areas must satisfy 0 < min <= max <= 0.1, not {self.min_area} and {self.max_area}")
        if self.size_px < 56 or self.size_px % 2:
            raise ValueError(f"size_px must be even (yuv420p) and at least 56, not {self.size_px}")
        if self.frames < 1 or self.annotate_every < 1 or self.fps < 1:
            raise ValueError("frames, annotate_every and fps must be at least 1")
        if not 0 <= self.max_speed_px < math.inf:
            raise ValueError(f"max_speed_px must be 0 or more, not {self.max_speed_px}")


@dataclass(frozen=True)
class Thing:
    """One object of a clip: its looks, its centre (x, y) in frame 0 and its velocity, in pixels."""

    colour: str
    shape: str
    pattern: str
    area_px: float
    centre: tuple[float, float]
    velocity: tuple[float, float]

    @property
    def phrase(self) -> str:
        return f"{self.colour} {self.shape}"


def draw_scene(rng: np.random.Generator, settings: ClipSettings) -> list[Thing]:
    """Return things of different colours and patterns at uniform places that never touch nor leave the frame.

    Raises ``RuntimeError`` when the settings leave no room for that many objects.
    """
    colours = rng.permutation(list(COLOURS))[: settings.objects]
    if settings.distinct_patterns:
        patterns = rng.permutation(PATTERNS)[: settings.objects]
    else:
        patterns = rng.choice(PATTERNS, settings.objects)
    for _ in range(_MAX_PLACE_TRIES):
        things = _place_all(rng, settings, colours, patterns)
        if things is not None:
            return things
    raise RuntimeError(
        f"found no room for {settings.objects} objects of up to {settings.max_area:.0%} of a {settings.size_px} px "
        "frame; lower objects, max_area or max_speed_px"
    )


def _place_all(rng, settings: ClipSettings, colours, patterns) -> list[Thing] | None:
    """One try at a scene: each thing gets a few uniform places; None when one of them found none."""
    taken = np.zeros((settings.frames, settings.size_px, settings.size_px), bool)
    things = []
    for colour, pattern in zip(colours, patterns):
        shape = str(rng.choice(SHAPES))
        area_px = rng.uniform(settings.min_area, settings.max_area) * settings.size_px**2
        for _ in range(20):
            angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, settings.max_speed_px)
            velocity = (float(speed * np.cos(angle)), float(speed * np.sin(angle)))
            x, y = rng.uniform(0, settings.size_px, 2)
            thing = Thing(str(colour), shape, str(pattern), area_px, (float(x), float(y)), velocity)
            if not _stays_inside(thing, settings, margin_px=2):
                continue
            masks = thing_masks(thing, settings, margin_px=2)
            if not (masks & taken).any():
                break
        else:
            return None
        taken |= masks
        things.append(thing)
    return things


def _stays_inside(thing: Thing, settings: ClipSettings, margin_px: float) -> bool:
    """Whether ``thing``, grown by ``margin_px``, never leaves the frame."""
    scale = _scale(thing.shape, thing.area_px) + margin_px  # a unit shape reaches at most 1 along each axis
    places = [place for frame in range(settings.frames) for place in _centre_at(thing, frame)]
    return scale <= min(places) and max(places) <= settings.size_px - scale


def thing_masks(thing: Thing, settings: ClipSettings, margin_px: float = 0) -> np.ndarray:
    """Return bool[T, H, W]: the pixels of ``thing``, grown by ``margin_px``."""
    scale = _scale(thing.shape, thing.area_px) + margin_px
    masks = []
    for frame in range(settings.frames):
        dx, dy = _offsets(*_centre_at(thing, frame), settings.size_px)
        masks.append(_inside(thing.shape, dx / scale, dy / scale))
    return np.stack(masks)


def _centre_at(thing: Thing, frame: int) -> tuple[float, float]:
    return thing.centre[0] + frame * thing.velocity[0], thing.centre[1] + frame * thing.velocity[1]


def _offsets(x: float, y: float, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float[1, W] and float[H, 1]: how far each pixel's middle lies right of x and below y."""
    grid = np.arange(size_px) + 0.5
    return (grid - x)[None, :], (grid - y)[:, None]


def _scale(shape: str, area_px: float) -> float:
    """Return the factor that gives the unit shape of ``_inside`` this area."""
    unit_area = {"circle": np.pi, "square": 4.0, "triangle": 0.75 * np.sqrt(3), "diamond": 2.0}[shape]
    return float(np.sqrt(area_px / unit_area))


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return bool[H, W]: whether the points lie in the unit shape; y points down."""
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 1
    if shape == "diamond":
        return abs(x) + abs(y) <= 1
    return (y <= 0.5) & (np.sqrt(3) * abs(x) <= 1 + y)  # upright, equilateral, centred on its centroid


def _inked(pattern: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return bool[H, W]: where the pattern puts ink. Offsets in pixels, so the pattern moves with its thing."""
    if pattern == "striped":
        return np.broadcast_to(y % 10 < 5, np.broadcast_shapes(x.shape, y.shape))
    if pattern == "dotted":
        return (x % 11 - 5.5) ** 2 + (y % 11 - 5.5) ** 2 <= 3.3**2
    if pattern == "checked":
        return (x // 7 + y // 7) % 2 == 0
    return np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)


def render(things: list[Thing], settings: ClipSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames uint8[T, H, W, 3] and the masks bool[N, T, H, W] of a scene on a light, grainy background."""
    grain = rng.normal(rng.uniform(170, 220), 2, (settings.size_px, settings.size_px, 1)).astype(np.uint8)
    frames = np.tile(grain, (settings.frames, 1, 1, 3))
    masks = np.stack([thing_masks(thing, settings) for thing in things])
    for thing, mask in zip(things, masks):
        for index in range(settings.frames):
            ink = _inked(thing.pattern, *_offsets(*_centre_at(thing, index), settings.size_px))
            frames[index][mask[index]] = COLOURS[thing.colour]
            frames[index][mask[index] & ink] = INK
    return frames, masks
