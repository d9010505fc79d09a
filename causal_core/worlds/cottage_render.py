"""Draws a cottage scene from its values and its seed.

Everything exogenous (positions, sizes, textures, colour jitter) comes from one generator seeded by the scene and drawn
in a fixed order that does not depend on any value, so two scenes that differ in values alone differ in nothing else.
Objects are painted back to front; colours of lit things are multiplied by the light of the hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .paint import Canvas, smooth_noise


def _rgb(code: str) -> np.ndarray:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255.0


SKY = {
    ("day", "clear"): ("4f9fe8", "c9e8fb"),
    ("day", "cloudy"): ("9aa9b5", "cfd6da"),
    ("dusk", "clear"): ("5a4a94", "ffa55e"),
    ("dusk", "cloudy"): ("5d5570", "c98f84"),
    ("night", "clear"): ("0a1136", "27386f"),
    ("night", "cloudy"): ("14161f", "2d313c"),
}
LIGHT = {"day": (1.0, 1.0, 1.0), "dusk": (0.95, 0.76, 0.70), "night": (0.50, 0.56, 0.78)}
CLOUDY_LIGHT = {"day": 0.92, "dusk": 0.92, "night": 0.88}
VEIL = {"day": 1.0, "dusk": 0.94, "night": 0.78}
HILLS = {
    "spring": ("a5d07a", "8cc063"),
    "summer": ("5d9b4f", "4a8743"),
    "autumn": ("cf9a4a", "b87f3a"),
    "winter": ("c3d3e2", "a9bfd4"),
}
GROUND = {"grass": ("7db955", "4f8c3b"), "puddles": ("7c8a55", "55633c"), "snow": ("f4f7fb", "d5e0ec")}
CROWN = {"blossom": ("f3a9c4", "fbd3e0"), "green": ("3f8f3c", "66b04f"), "golden": ("d9822b", "f0b03f")}
HOUSE = {"red": "c8473d", "blue": "4d7fb8", "yellow": "ecc04c", "white": "f1ede4"}
DOOR = {"green": "2f7d4f", "brown": "6b4226", "white": "fbfbf6"}
CAR = {"red": "d8322f", "blue": "2f62c9"}
MERCURY = {"cold": ("3b78d8", 0.22), "mild": ("f09a2c", 0.55), "warm": ("dd2c2c", 0.95)}
ROOF, TRUNK, STONE, FRAME = _rgb("5b4a4f"), _rgb("6a4a35"), _rgb("8a8480"), _rgb("3b3330")


@dataclass(frozen=True)
class Jitter:
    """Everything about a scene that no variable decides; lengths are fractions of the picture."""

    house_x: float
    house_w: float
    house_y: float
    roof: float
    tree_x: float
    tree_h: float
    crown: tuple[tuple[float, float, float], ...]
    twigs: tuple[float, ...]
    car_x: float
    person_x: float
    pond: tuple[float, float, float]
    lamp_x: float
    ridge: tuple[tuple[float, float, float], ...]
    clouds: tuple[tuple[float, float, float], ...]
    stars: tuple[tuple[float, float], ...]
    sun: tuple[float, float]
    drops: tuple[tuple[float, float], ...]
    puffs: tuple[float, ...]
    tint: dict[str, np.ndarray]
    texture: np.random.Generator

    @classmethod
    def draw(cls, seed: int) -> Jitter:
        """The jitter of a seed."""
        rng = np.random.default_rng([seed, 7081])

        def u(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        drops = []
        for row in range(7):
            for column in range(8):
                drops.append(((column + u(0.1, 0.9)) / 8, (row + u(0.1, 0.9)) / 7 * 0.86))
        return cls(
            house_x=u(0.13, 0.18),
            house_w=u(0.32, 0.37),
            house_y=u(0.42, 0.455),
            roof=u(0.17, 0.205),
            tree_x=u(0.745, 0.805),
            tree_h=u(0.35, 0.40),
            crown=tuple((u(-0.012, 0.012), u(-0.012, 0.012), u(0.9, 1.1)) for _ in range(6)),
            twigs=tuple(u(-0.25, 0.25) for _ in range(6)),
            car_x=u(0.17, 0.25),
            person_x=u(0.87, 0.90),
            pond=(u(0.65, 0.69), u(0.115, 0.135), u(0.048, 0.056)),
            lamp_x=u(0.565, 0.60),
            ridge=tuple((u(0.012, 0.03), u(0.8, 1.6), u(0.0, 6.28)) for _ in range(2)),
            clouds=tuple((u(0.02, 0.30) + 0.33 * i, u(0.08, 0.20), u(0.8, 1.15)) for i in range(3)),
            stars=tuple((u(0.03, 0.97), u(0.02, 0.30)) for _ in range(14)),
            sun=(u(0.64, 0.72), u(0.10, 0.14)),
            drops=tuple(drops),
            puffs=tuple(u(-1.0, 1.0) for _ in range(5)),
            tint={
                name: rng.uniform(-0.03, 0.03, 3).astype(np.float32)
                for name in ("sky", "hills", "ground", "crown", "house", "door", "car", "roof")
            },
            texture=rng,
        )


def paint(values: Mapping[str, str], seed: int, size: int, masked: bool = False) -> Canvas:
    """Paint a scene; with ``masked`` the canvas also holds the region of every concept that the picture shows."""
    j = Jitter.draw(seed)
    c = Canvas(size, masked)
    grain = smooth_noise(j.texture, 9, size)
    _sky(c, values, j)
    c.light = np.array(LIGHT[values["time"]], np.float32) * (
        CLOUDY_LIGHT[values["time"]] if values["weather"] == "cloudy" else 1.0
    )
    _hills(c, values, j)
    _ground(c, values, j, grain)
    _pond(c, values, j)
    _shadows(c, values, j)
    _falling(c, values, j)
    _smoke(c, values, j)
    _house(c, values, j)
    _tree(c, values, j)
    _thermometer(c, values)
    _lamp(c, values, j)
    _car(c, values, j)
    _person(c, values, j)
    if values["layout"] == "right":
        c.rgb = c.rgb[:, ::-1]
        c.masks = None if c.masks is None else {name: mask[:, ::-1] for name, mask in c.masks.items()}
    if c.masks is not None:
        c.masks["layout"] = np.clip(sum(c.masks.get(k, 0.0) for k in ("house", "door", "windows")), 0.0, 1.0)
    return c


def _sky(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    top, low = (_rgb(code) + j.tint["sky"] for code in SKY[v["time"], v["weather"]])
    t = np.clip(c.y / 0.55, 0.0, 1.0)[..., None]
    c.rgb[:] = top * (1.0 - t) + low * t
    if c.masks is not None:
        c.masks.update({name: np.ones((c.size, c.size), np.float32) for name in ("time", "weather")})
    x, y = j.sun
    if v["weather"] == "cloudy":
        shade = {"day": ("f1f3f5", "b9c2ca"), "dusk": ("b99aa6", "85748a"), "night": ("4a4f5e", "343946")}[v["time"]]
        for cx, cy, s in j.clouds:
            for k, colour in enumerate(reversed(shade)):
                for dx, dy, r in ((-0.09, 0.02, 0.055), (0.0, -0.01, 0.075), (0.085, 0.02, 0.06), (0.0, 0.03, 0.06)):
                    c.ellipse(
                        cx + dx * s, cy + dy - 0.014 * k, r * s * 1.25, r * s * 0.8, _rgb(colour), 0.9, None, False
                    )
    elif v["time"] == "day":
        c.glow(x, y, 0.30, (1.0, 0.92, 0.55), 0.55)
        c.ellipse(x, y, 0.062, 0.062, _rgb("fff3b8"), lit=False)
    elif v["time"] == "dusk":
        c.glow(x, 0.40, 0.42, (1.0, 0.55, 0.20), 0.50)
        c.ellipse(x, 0.40, 0.070, 0.070, _rgb("ffdf94"), lit=False)
    else:
        for sx, sy in j.stars:
            c.ellipse(sx, sy, 0.007, 0.007, _rgb("f4f1dc"), 0.9, lit=False)
        c.glow(x, y, 0.18, (0.75, 0.80, 1.0), 0.30)
        c.ellipse(x, y, 0.052, 0.052, _rgb("f3efd6"), lit=False)
        c.ellipse(x + 0.024, y - 0.014, 0.045, 0.045, _rgb("141f4a"), lit=False)


def _hills(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    for level, (code, (height, waves, phase)) in enumerate(zip(HILLS[v["season"]], j.ridge)):
        ridge = (
            0.455 + 0.055 * level - height * np.sin(c.x[0] * waves * 6.28 + phase) - 0.02 * np.cos(c.x[0] * 3.0 + phase)
        )
        c.below(ridge.astype(np.float32), _rgb(code) + j.tint["hills"], "season")


def _ground(c: Canvas, v: Mapping[str, str], j: Jitter, grain: np.ndarray) -> None:
    near, far = (_rgb(code) + j.tint["ground"] for code in GROUND[v["ground"]][::-1])
    t = np.clip((c.y - 0.58) / 0.42, 0.0, 1.0)[..., None]
    bumps = (grain * {"grass": 0.030, "puddles": 0.030, "snow": 0.018}[v["ground"]])[..., None]
    ridge = 0.585 + 0.012 * np.sin(c.x[0] * 5.0 + j.ridge[0][2])
    c.below(ridge.astype(np.float32), far * (1.0 - t) + near * t + bumps, "ground")
    if v["ground"] == "puddles":
        for x, y, r in (
            (0.30, 0.765, 0.10),
            (0.47, 0.93, 0.13),
            (0.13, 0.945, 0.10),
            (0.88, 0.945, 0.085),
            (0.62, 0.72, 0.07),
        ):
            c.ellipse(x, y, r, r * 0.27, _rgb("9fb6cc"), 0.95, "ground")
            c.ellipse(x - 0.2 * r, y - 0.06 * r, r * 0.55, r * 0.10, _rgb("d8e5f0"), 0.8, "ground")


def _pond(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    x, rx, ry = j.pond
    y = 0.845
    c.ellipse(x, y, rx + 0.012, ry + 0.010, _rgb("7a6a55"), 0.8, "pond")
    if v["pond"] == "water":
        c.ellipse(x, y, rx, ry, _rgb("2b6f9e"), 1.0, "pond")
        c.ellipse(x - 0.03, y - 0.012, rx * 0.5, 0.008, _rgb("69abd0"), 0.9, "pond")
        c.ellipse(x + 0.03, y + 0.016, rx * 0.4, 0.007, _rgb("4c92bd"), 0.9, "pond")
    else:
        c.ellipse(x, y, rx, ry, _rgb("cfe9f5"), 1.0, "pond")
        for dx, dy in ((-0.6, -0.25), (0.1, 0.75), (0.55, -0.55)):
            c.stroke(x, y, x + dx * rx, y + dy * ry, 0.010, _rgb("8db9d4"), 0.9, "pond")


def _shadows(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    if v["shadow"] == "none":
        return
    dark, base = _rgb("1c2733"), j.house_x + j.house_w
    foot = 0.70
    if v["shadow"] == "short":
        c.ellipse(j.tree_x, foot + 0.012, 0.115, 0.030, dark, 0.50, "shadow", soft=0.02)
        c.convex(
            [(j.house_x, 0.715), (base, 0.715), (base - 0.02, 0.755), (j.house_x - 0.03, 0.755)],
            dark,
            0.50,
            "shadow",
            soft=0.015,
        )
    else:
        c.ellipse(j.tree_x - 0.14, foot + 0.045, 0.17, 0.034, dark, 0.50, "shadow", soft=0.02, slant=-1.5)
        c.convex(
            [(j.house_x, 0.715), (base, 0.715), (base - 0.13, 0.840), (j.house_x - 0.16, 0.840)],
            dark,
            0.50,
            "shadow",
            soft=0.015,
        )


def _falling(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    veil = VEIL[v["time"]]
    if v["precipitation"] == "rain":
        for x, y in j.drops:
            c.stroke(x, y, x - 0.022, y + 0.062, 0.011, _rgb("dbe9f7") * veil, 0.62, "precipitation", False)
    elif v["precipitation"] == "snow":
        for k, (x, y) in enumerate(j.drops):
            r = 0.0115 + 0.003 * (k % 3)
            c.ellipse(x, y, r, r, _rgb("ffffff") * veil, 0.92, "precipitation", False)


def _smoke(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    if v["smoke"] == "smoke":
        x, y = j.house_x + 0.78 * j.house_w, j.house_y - j.roof * 0.95
        for k, puff in enumerate(j.puffs):
            grow = 0.024 + 0.0085 * k
            c.ellipse(
                x + 0.022 * k + 0.006 * puff,
                y - 0.050 * k - 0.012,
                grow * 1.15,
                grow,
                _rgb("e9e9ec") * (1 - 0.03 * k),
                0.93 - 0.07 * k,
                "smoke",
                soft=0.022,
            )


def _house(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    x0, x1, y0, y1 = j.house_x, j.house_x + j.house_w, j.house_y, 0.715
    wall = _rgb(HOUSE[v["house"]]) + j.tint["house"]
    roof = ROOF + j.tint["roof"]
    middle, eave = (x0 + x1) / 2, 0.035
    chimney = x0 + 0.78 * j.house_w
    c.box(chimney - 0.024, y0 - j.roof * 0.90, chimney + 0.024, y0, _rgb("8d5a4a"))
    c.box(x0, y0, x1, y1, wall, concept="house")
    c.box(x0, y1 - 0.025, x1, y1, STONE)
    c.box(x0, y0, x1, y0 + 0.022, wall * 0.72, concept="house")
    c.convex([(x0 - eave, y0 + 0.012), (middle, y0 - j.roof), (x1 + eave, y0 + 0.012)], roof)
    if v["ground"] == "snow":
        snow = _rgb("f4f7fb")
        c.stroke(x0 - eave, y0 - 0.004, middle, y0 - j.roof - 0.006, 0.034, snow, 1.0, "ground")
        c.stroke(x1 + eave, y0 - 0.004, middle, y0 - j.roof - 0.006, 0.034, snow, 1.0, "ground")
    dx = x0 + 0.66 * j.house_w
    c.box(dx - 0.050, y1 - 0.165, dx + 0.050, y1 - 0.006, FRAME)
    c.box(dx - 0.040, y1 - 0.155, dx + 0.040, y1 - 0.006, _rgb(DOOR[v["door"]]) + j.tint["door"], concept="door")
    c.ellipse(dx + 0.024, y1 - 0.075, 0.007, 0.007, _rgb("e8c35a"))
    _windows(c, v, j)


def _windows(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    lit = v["windows"] == "lit"
    x, y = j.house_x + 0.25 * j.house_w, j.house_y + 0.120
    middle, gable = j.house_x + 0.5 * j.house_w, j.house_y - 0.062
    glass = _rgb("ffd766") if lit else _rgb("34465c")
    c.ellipse(middle, gable, 0.036, 0.036, _rgb("efe7da"))
    c.ellipse(middle, gable, 0.026, 0.026, glass, 1.0, "windows", not lit)
    c.box(x - 0.062, y - 0.060, x + 0.062, y + 0.056, _rgb("efe7da"))
    c.box(x - 0.050, y - 0.048, x + 0.050, y + 0.044, glass, 1.0, "windows", not lit)
    c.box(x - 0.006, y - 0.048, x + 0.006, y + 0.044, _rgb("efe7da"))
    if lit:
        strength = {"day": 0.10, "dusk": 0.25, "night": 0.38}[v["time"]]
        c.glow(x, y, 0.16, (1.0, 0.75, 0.30), strength)
        c.glow(middle, gable, 0.10, (1.0, 0.75, 0.30), strength)


def _tree(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    x, foot, top = j.tree_x, 0.712, 0.712 - j.tree_h
    fork = foot - 0.42 * j.tree_h
    c.convex(
        [(x - 0.014, fork - 0.06), (x + 0.014, fork - 0.06), (x + 0.026, foot), (x - 0.026, foot)],
        TRUNK,
        concept="foliage",
    )
    bare = v["foliage"] == "bare"
    for k, twig in enumerate(j.twigs):
        side, lift = (-1, 1)[k % 2], 0.30 + 0.16 * (k // 2)
        ex, ey = x + side * (0.105 - 0.020 * (k // 2)) + 0.03 * twig, foot - j.tree_h * (lift + 0.36)
        c.stroke(x, fork - 0.05 * (k // 2) + 0.03, ex, ey, 0.016, TRUNK, 1.0, "foliage")
        if bare:
            mx, my = (x + ex) / 2, (fork - 0.05 * (k // 2) + 0.03 + ey) / 2
            c.stroke(mx, my, mx + side * 0.050, my - 0.012 + 0.03 * twig, 0.010, TRUNK, 1.0, "foliage")
    c.stroke(x, fork, x, top + 0.03, 0.015, TRUNK, 1.0, "foliage")
    if bare:
        return
    deep, bright = (_rgb(code) + j.tint["crown"] for code in CROWN[v["foliage"]])
    cy = top + 0.105
    spots = (
        (0.0, 0.02, 0.105),
        (-0.075, 0.045, 0.070),
        (0.075, 0.045, 0.070),
        (-0.042, -0.045, 0.066),
        (0.042, -0.045, 0.066),
    )
    for (dx, dy, r), (jx, jy, s) in zip(spots, j.crown):
        c.ellipse(x + dx + jx, cy + dy + jy, r * s, r * s, deep, 1.0, "foliage")
    for (dx, dy, r), (jx, jy, s) in zip(spots, j.crown[1:]):
        c.ellipse(
            x + dx * 0.8 - 0.016 + jx,
            cy + dy * 0.8 - 0.02 + jy,
            r * 0.50 * s,
            r * 0.45 * s,
            bright,
            0.85,
            "foliage",
            soft=0.012,
        )


def _thermometer(c: Canvas, v: Mapping[str, str]) -> None:
    code, level = MERCURY[v["temperature"]]
    x, top, bulb = 0.058, 0.555, 0.800
    c.box(x - 0.034, top - 0.020, x + 0.034, bulb + 0.050, _rgb("6f6a66"), 1.0, "temperature", round_=0.030)
    c.box(x - 0.026, top - 0.012, x + 0.026, bulb + 0.042, _rgb("ffffff"), 1.0, "temperature", round_=0.024)
    c.box(x - 0.013, bulb - level * (bulb - top - 0.01), x + 0.013, bulb, _rgb(code), 1.0, "temperature")
    c.ellipse(x, bulb + 0.008, 0.024, 0.024, _rgb(code), 1.0, "temperature")


def _lamp(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    x, top, foot, on = j.lamp_x, 0.470, 0.775, v["lamp"] == "on"
    c.box(x - 0.009, top + 0.04, x + 0.009, foot, _rgb("2e3238"))
    c.box(x - 0.022, foot - 0.014, x + 0.022, foot + 0.004, _rgb("2e3238"))
    c.convex([(x - 0.034, top - 0.012), (x, top - 0.045), (x + 0.034, top - 0.012)], _rgb("2e3238"))
    glass = _rgb("fff0a0") if on else _rgb("737b82")
    c.convex(
        [(x - 0.030, top - 0.014), (x + 0.030, top - 0.014), (x + 0.020, top + 0.046), (x - 0.020, top + 0.046)],
        glass,
        1.0,
        "lamp",
        not on,
    )
    if on:
        c.glow(x, top + 0.014, 0.17, (1.0, 0.85, 0.42), {"day": 0.35, "dusk": 0.50, "night": 0.70}[v["time"]])


def _car(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    if v["car"] == "none":
        return
    x, y, body = j.car_x, 0.885, _rgb(CAR[v["car"]]) + j.tint["car"]
    c.ellipse(x + 0.115, y + 0.045, 0.125, 0.014, _rgb("1c2226"), 0.35, "car", soft=0.01)
    c.convex(
        [(x + 0.058, y - 0.075), (x + 0.160, y - 0.075), (x + 0.192, y - 0.012), (x + 0.034, y - 0.012)],
        body,
        1.0,
        "car",
    )
    c.convex(
        [(x + 0.068, y - 0.062), (x + 0.106, y - 0.062), (x + 0.106, y - 0.016), (x + 0.052, y - 0.016)],
        _rgb("cfe3ef"),
        1.0,
        "car",
    )
    c.convex(
        [(x + 0.118, y - 0.062), (x + 0.153, y - 0.062), (x + 0.174, y - 0.016), (x + 0.118, y - 0.016)],
        _rgb("cfe3ef"),
        1.0,
        "car",
    )
    c.box(x, y - 0.020, x + 0.232, y + 0.034, body, 1.0, "car", round_=0.018)
    for wheel in (0.052, 0.178):
        c.ellipse(x + wheel, y + 0.034, 0.029, 0.029, _rgb("1f2226"), 1.0, "car")
        c.ellipse(x + wheel, y + 0.034, 0.012, 0.012, _rgb("b9bfc4"), 1.0, "car")


def _person(c: Canvas, v: Mapping[str, str], j: Jitter) -> None:
    x, y = j.person_x, 0.885
    c.box(x - 0.020, y - 0.06, x - 0.004, y + 0.01, _rgb("2b2f45"))
    c.box(x + 0.004, y - 0.06, x + 0.020, y + 0.01, _rgb("2b2f45"))
    c.box(x - 0.030, y - 0.145, x + 0.030, y - 0.045, _rgb("d9b23c"), round_=0.018)
    c.ellipse(x, y - 0.172, 0.026, 0.028, _rgb("e9bd98"))
    if v["umbrella"] == "open":
        c.stroke(x - 0.034, y - 0.10, x - 0.034, y - 0.235, 0.010, _rgb("3a3a3a"), 1.0, "umbrella")
        c.convex(
            [
                (x - 0.115, y - 0.200),
                (x - 0.100, y - 0.245),
                (x - 0.066, y - 0.275),
                (x - 0.030, y - 0.285),
                (x + 0.006, y - 0.275),
                (x + 0.040, y - 0.245),
                (x + 0.055, y - 0.200),
            ],
            _rgb("b0208a"),
            1.0,
            "umbrella",
        )
        c.convex(
            [(x - 0.050, y - 0.200), (x - 0.044, y - 0.262), (x - 0.016, y - 0.262), (x - 0.010, y - 0.200)],
            _rgb("e060b8"),
            1.0,
            "umbrella",
        )
