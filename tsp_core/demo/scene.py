"""What the demo videos show: a pure function of (seed, video, frame), drawn with numpy.

Every video has one textured sprite over a textured ground. The classes differ in how the sprite
moves and in nothing else: sprite, colours, place, size and ground are drawn alike for all
classes, so a single frame does not tell the class. Between the actions the same sprite rests,
wanders or darts, at the speeds that it has in actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = ("bounce", "circle", "shake", "swing", "zoom")
"""Action classes: up and down, round, fast and small, left and right, nearer and farther."""

BACKGROUND_MOTIONS = ("rest", "wander", "dart")
"""What the sprite does between actions."""

_RAMP_SECONDS = 0.25  # motions fade in and out over this, so that the sprite never jumps
_PLAN, _LOOK, _NOISE = 0, 1, 2  # independent streams of random numbers per video
_NOISE_LEVELS = 4.0  # standard deviation of the camera's noise, of 255


@dataclass(frozen=True, kw_only=True)
class Part:
    """One motion of the sprite over the half-open interval [start, end) of seconds."""

    motion: str
    start_seconds: float
    end_seconds: float
    amplitude: float  # of the motion, in frame heights
    rate_hertz: float
    phase: float  # radians
    waypoints: tuple[tuple[float, float], ...]  # of a dart, in amplitudes

    @property
    def is_action(self) -> bool:
        """Whether this is an annotated action."""
        return self.motion in CLASSES


@dataclass(frozen=True, kw_only=True)
class Look:
    """The sprite's and the ground's appearance, and the slow drift under every motion."""

    ground: NDArray[np.float32]  # [6, 8, 3] levels, enlarged to the frame
    sprite_colors: NDArray[np.float32]  # [2, 3] levels
    sprite_texture: NDArray[np.float64]  # [2] radians per radius, along and across
    radius: float  # in frame heights
    turn_hertz: float  # slow rotation of the sprite
    drift: NDArray[np.float64]  # [3 of x, y, log size; 2 waves; amplitude, hertz, phase]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that one video shows."""

    seed: int
    index: int
    parts: tuple[Part, ...]
    look: Look

    @property
    def duration_seconds(self) -> float:
        """End of the last part."""
        return self.parts[-1].end_seconds


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the sprite is: frame heights from the middle, relative size, angle in radians."""

    x: float
    y: float
    size: float
    angle: float


def random_stream(seed: int, index: int, *keys: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the seed, the video and the keys."""
    return np.random.default_rng([seed, index, *keys])


def plan_scene(seed: int, index: int) -> Scene:
    """Draw up one video: 2 to 4 actions of 1.2 to 6 s with background between and around them."""
    random = random_stream(seed, index, _PLAN)
    num_actions = int(random.integers(2, 5))
    # consecutive classes, so that few videos hold all classes; the order inside is random
    classes = [CLASSES[(3 * index + offset) % len(CLASSES)] for offset in range(num_actions)]
    motions = [str(random.choice(BACKGROUND_MOTIONS))]
    for position in random.permutation(num_actions):
        motions += [classes[position], str(random.choice(BACKGROUND_MOTIONS))]
    parts: list[Part] = []
    start = 0.0
    for motion in motions:
        part = _plan_part(random, motion, start)
        parts.append(part)
        start = part.end_seconds
    return Scene(seed=seed, index=index, parts=tuple(parts), look=_plan_look(seed, index))


def _plan_part(random: np.random.Generator, motion: str, start: float) -> Part:
    # log-uniform: as many instances between 1.2 and 2.7 s as between 2.7 and 6 s
    seconds = float(np.exp(random.uniform(np.log(1.2), np.log(6.0))))
    amplitude, rate = random.uniform(0.14, 0.22), random.uniform(0.9, 1.4)
    if motion == "shake":
        amplitude, rate = amplitude * 0.4, rate * 3
    steps = max(2, int(seconds / 0.9))
    places = random.uniform(-1.2, 1.2, size=(steps - 1, 2))
    waypoints = [(0.0, 0.0), *[(float(x), float(y)) for x, y in places], (0.0, 0.0)]
    return Part(
        motion=motion,
        start_seconds=start,
        end_seconds=round(start + seconds, 3),
        amplitude=float(amplitude),
        rate_hertz=float(rate),
        phase=float(random.uniform(0, 2 * np.pi)),
        waypoints=tuple(waypoints),
    )


def _plan_look(seed: int, index: int) -> Look:
    random = random_stream(seed, index, _LOOK)
    drift = np.stack(
        [
            random.uniform([0.03, 0.03], [0.10, 0.06], size=(3, 2)),
            random.uniform([0.03, 0.10], [0.08, 0.16], size=(3, 2)),
            random.uniform(0, 2 * np.pi, size=(3, 2)),
        ],
        axis=-1,
    )
    base = random.uniform(60, 150, size=3)
    return Look(
        ground=(base + random.normal(0, 22, size=(6, 8, 3))).astype(np.float32),
        sprite_colors=np.stack(
            [random.uniform(170, 255, size=3), random.uniform(0, 90, size=3)]
        ).astype(np.float32),
        sprite_texture=random.uniform(2.0, 5.0, size=2),
        radius=float(random.uniform(0.14, 0.19)),
        turn_hertz=float(random.uniform(-0.08, 0.08)),
        drift=drift,
    )


def pose_at(scene: Scene, time_seconds: float) -> Pose:
    """Where the sprite is at a time: slow drift plus the motion of the part."""
    amplitudes, rates, phases = np.moveaxis(scene.look.drift, -1, 0)
    x, y, log_size = (amplitudes * np.sin(2 * np.pi * rates * time_seconds + phases)).sum(axis=1)
    part = next((part for part in scene.parts if time_seconds < part.end_seconds), scene.parts[-1])
    offset_x, offset_y, offset_size = _offset(part, time_seconds)
    return Pose(
        x=float(x + offset_x),
        y=float(y + offset_y),
        size=float(np.exp(2.5 * log_size + offset_size)),
        angle=float(2 * np.pi * scene.look.turn_hertz * time_seconds),
    )


def _offset(part: Part, time_seconds: float) -> tuple[float, float, float]:
    """What a part's motion adds to x, y (frame heights) and to the logarithm of the size."""
    since = time_seconds - part.start_seconds
    left = part.end_seconds - time_seconds
    ramp = _smooth(since / _RAMP_SECONDS) * _smooth(left / _RAMP_SECONDS)
    reach = part.amplitude * ramp
    turn = 2 * np.pi * part.rate_hertz * since + part.phase
    if part.motion == "bounce":
        return 0.0, reach * np.sin(turn), 0.0
    if part.motion == "circle":
        return reach * np.cos(turn), reach * np.sin(turn), 0.0
    if part.motion == "shake":
        return reach * np.sin(turn), reach * np.sin(1.3 * turn), 0.0
    if part.motion == "swing":
        return reach * np.sin(turn), 0.0, 0.0
    if part.motion == "zoom":
        return 0.0, 0.0, 1.9 * reach * np.sin(turn)
    if part.motion == "wander":
        return reach * np.sin(0.31 * turn), reach * np.sin(0.23 * turn + part.phase), 0.0
    if part.motion == "dart":
        x, y = _dart(part, since)
        return reach * x, reach * y, 0.0
    return 0.0, 0.0, 0.0  # rest


def _dart(part: Part, since: float) -> tuple[float, float]:
    """Stand at each waypoint in turn, and move on to the next within a third of the time."""
    legs = len(part.waypoints) - 1
    position = min(max(since / (part.end_seconds - part.start_seconds), 0.0), 1.0) * legs
    leg = min(int(position), legs - 1)
    share = _smooth(3 * (position - leg) - 1)
    (x0, y0), (x1, y1) = part.waypoints[leg], part.waypoints[leg + 1]
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def _smooth(share: float) -> float:
    """0 before 0, 1 after 1, with zero slope at both."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def draw_ground(scene: Scene, width: int, height: int) -> NDArray[np.float32]:
    """Draw what lies behind the sprite, float32 [height, width, 3] in levels."""
    grid = scene.look.ground
    rows = np.linspace(0, grid.shape[0] - 1.001, height)
    columns = np.linspace(0, grid.shape[1] - 1.001, width)
    top, left = rows.astype(int), columns.astype(int)
    down = (rows - top).astype(np.float32)[:, None, None]
    right = (columns - left).astype(np.float32)[None, :, None]
    upper = grid[top][:, left] * (1 - right) + grid[top][:, left + 1] * right
    lower = grid[top + 1][:, left] * (1 - right) + grid[top + 1][:, left + 1] * right
    drawn: NDArray[np.float32] = upper * (1 - down) + lower * down
    return drawn


def draw_frame(
    scene: Scene, ground: NDArray[np.float32], frame: int, time_seconds: float
) -> NDArray[np.uint8]:
    """Draw one frame.

    Args:
        scene: What the video shows.
        ground: From `draw_ground`, in the frame's size.
        frame: Number of the frame; seeds the camera's noise.
        time_seconds: When the frame is.

    Returns:
        RGB, uint8 [height, width, 3].
    """
    picture = ground.copy()
    _draw_sprite(picture, scene.look, pose_at(scene, time_seconds))
    noise = random_stream(scene.seed, scene.index, _NOISE, frame)
    picture += _NOISE_LEVELS * noise.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _draw_sprite(picture: NDArray[np.float32], look: Look, pose: Pose) -> None:
    height, width = picture.shape[:2]
    radius = look.radius * pose.size * height
    center_x, center_y = width / 2 + pose.x * height, height / 2 + pose.y * height
    x0, x1 = max(0, int(center_x - radius)), min(width, int(center_x + radius) + 2)
    y0, y1 = max(0, int(center_y - radius)), min(height, int(center_y + radius) + 2)
    rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    u, v = (columns + 0.5 - center_x) / radius, (rows + 0.5 - center_y) / radius
    sine, cosine = np.sin(pose.angle), np.cos(pose.angle)
    along, across = look.sprite_texture
    stripes = np.sin(along * (u * cosine - v * sine)) * np.sin(across * (u * sine + v * cosine))
    share = (0.5 + 0.5 * stripes)[..., None]
    bright, dark = look.sprite_colors
    texture = bright * (1 - 0.5 * share) + dark * 0.5 * share
    cover = np.clip((1 - np.sqrt(u * u + v * v)) * radius / 2, 0, 1)[..., None]  # soft rim
    area = picture[y0:y1, x0:x1]
    area += cover * (texture - area)
