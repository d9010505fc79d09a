"""The structural causal model and the caption grammar of the cottage world.

Seventeen concepts in chains up to four edges deep (season, temperature, precipitation, ground). A hidden weather front
confounds the time of the picture with the weather. Noise matters everywhere: a winter scene may lack snow, and whether
a chimney smokes at a mild temperature is decided by that household's own noise.
"""

from __future__ import annotations

from ..scm import SCM, Variable

FRONT = Variable("front", ("calm", "stormy"), (), {(): (0.65, 0.35)}, hidden=True)

SEASON = Variable("season", ("spring", "summer", "autumn", "winter"), (), {(): (0.25, 0.25, 0.25, 0.25)})

TIME = Variable(
    "time", ("day", "dusk", "night"), ("front",),
    {("calm",): (0.60, 0.20, 0.20), ("stormy",): (0.30, 0.30, 0.40)},
)

WEATHER = Variable(
    "weather", ("clear", "cloudy"), ("season", "front"),
    {
        ("spring", "calm"): (0.65, 0.35), ("spring", "stormy"): (0.30, 0.70),
        ("summer", "calm"): (0.80, 0.20), ("summer", "stormy"): (0.45, 0.55),
        ("autumn", "calm"): (0.50, 0.50), ("autumn", "stormy"): (0.20, 0.80),
        ("winter", "calm"): (0.55, 0.45), ("winter", "stormy"): (0.20, 0.80),
    },
)

TEMPERATURE = Variable(
    "temperature", ("warm", "mild", "cold"), ("season",),
    {
        ("spring",): (0.12, 0.75, 0.13), ("summer",): (0.86, 0.14, 0.00),
        ("autumn",): (0.08, 0.66, 0.26), ("winter",): (0.00, 0.10, 0.90),
    },
)

PRECIPITATION = Variable(
    "precipitation", ("none", "rain", "snow"), ("weather", "temperature"),
    {
        ("clear", "warm"): (1.0, 0.0, 0.0), ("clear", "mild"): (1.0, 0.0, 0.0), ("clear", "cold"): (1.0, 0.0, 0.0),
        ("cloudy", "warm"): (0.55, 0.45, 0.0), ("cloudy", "mild"): (0.45, 0.55, 0.0),
        ("cloudy", "cold"): (0.40, 0.05, 0.55),
    },
)

GROUND = Variable(
    "ground", ("grass", "puddles", "snow"), ("precipitation", "temperature"),
    {
        ("none", "warm"): (0.98, 0.02, 0.00), ("none", "mild"): (0.90, 0.10, 0.00), ("none", "cold"): (0.25, 0.05,
        0.70), ("rain", "warm"): (0.10, 0.90, 0.00), ("rain", "mild"): (0.03, 0.97, 0.00), ("rain", "cold"): (0.00,
        0.85, 0.15), ("snow", "warm"): (0.20, 0.60, 0.20), ("snow", "mild"): (0.10, 0.40, 0.50), ("snow", "cold"):
        (0.00, 0.02, 0.98),
    },
)

FOLIAGE = Variable(
    "foliage", ("blossom", "green", "golden", "bare"), ("season",),
    {
        ("spring",): (0.70, 0.30, 0.00, 0.00), ("summer",): (0.00, 1.00, 0.00, 0.00),
        ("autumn",): (0.00, 0.10, 0.75, 0.15), ("winter",): (0.00, 0.05, 0.03, 0.92),
    },
)

POND = Variable(
    "pond", ("water", "ice"), ("temperature",),
    {("warm",): (1.0, 0.0), ("mild",): (1.0, 0.0), ("cold",): (0.15, 0.85)},
)

SMOKE = Variable(
    "smoke", ("none", "smoke"), ("temperature",),
    {("warm",): (0.95, 0.05), ("mild",): (0.60, 0.40), ("cold",): (0.08, 0.92)},
)

WINDOWS = Variable(
    "windows", ("dark", "lit"), ("time",),
    {("day",): (0.94, 0.06), ("dusk",): (0.35, 0.65), ("night",): (0.12, 0.88)},
)

LAMP = Variable(
    "lamp", ("off", "on"), ("time", "weather"),
    {
        ("day", "clear"): (0.99, 0.01), ("day", "cloudy"): (0.88, 0.12),
        ("dusk", "clear"): (0.45, 0.55), ("dusk", "cloudy"): (0.15, 0.85),
        ("night", "clear"): (0.04, 0.96), ("night", "cloudy"): (0.02, 0.98),
    },
)

SHADOW = Variable(
    "shadow", ("none", "short", "long"), ("time", "weather"),
    {
        ("day", "clear"): (0.04, 0.92, 0.04), ("day", "cloudy"): (1.0, 0.0, 0.0),
        ("dusk", "clear"): (0.08, 0.04, 0.88), ("dusk", "cloudy"): (1.0, 0.0, 0.0),
        ("night", "clear"): (1.0, 0.0, 0.0), ("night", "cloudy"): (1.0, 0.0, 0.0),
    },
)

UMBRELLA = Variable(
    "umbrella", ("none", "open"), ("precipitation",),
    {("none",): (0.96, 0.04), ("rain",): (0.07, 0.93), ("snow",): (0.45, 0.55)},
)

HOUSE = Variable("house", ("red", "blue", "yellow", "white"), (), {(): (0.25, 0.25, 0.25, 0.25)})
DOOR = Variable("door", ("green", "brown", "white"), (), {(): (0.34, 0.33, 0.33)})
CAR = Variable("car", ("none", "red", "blue"), (), {(): (0.34, 0.33, 0.33)})
LAYOUT = Variable("layout", ("left", "right"), (), {(): (0.5, 0.5)})

COTTAGE = SCM(
    (
        FRONT, SEASON, TIME, WEATHER, TEMPERATURE, PRECIPITATION, GROUND, FOLIAGE, POND, SMOKE, WINDOWS, LAMP, SHADOW,
        UMBRELLA, HOUSE, DOOR, CAR, LAYOUT,
    )
)

CONFOUNDED = (("time", "weather"),)

# In caption order. The first paraphrase of a value is its canonical phrase.
PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "season": {
        "spring": ("in spring", "springtime"), "summer": ("in summer", "summertime"),
        "autumn": ("in autumn", "in the fall"), "winter": ("in winter", "wintertime"),
    },
    "time": {
        "day": ("by day", "at daytime"), "dusk": ("at dusk", "at sunset"), "night": ("at night", "after dark"),
    },
    "weather": {"clear": ("clear sky", "cloudless sky"), "cloudy": ("cloudy sky", "overcast sky")},
    "temperature": {
        "warm": ("warm air", "hot weather"), "mild": ("mild air", "mild weather"),
        "cold": ("cold air", "freezing weather"),
    },
    "precipitation": {
        "none": ("nothing falling", "no precipitation"), "rain": ("rain falling", "rainfall"),
        "snow": ("snow falling", "snowfall"),
    },
    "ground": {
        "grass": ("green grass", "grassy ground"), "puddles": ("wet ground", "puddles on the ground"),
        "snow": ("snowy ground", "snow on the ground"),
    },
    "foliage": {
        "blossom": ("blossoming tree", "tree in bloom"), "green": ("leafy tree", "tree in leaf"),
        "golden": ("golden tree", "tree in autumn colours"), "bare": ("bare tree", "leafless tree"),
    },
    "pond": {"water": ("open pond", "pond of water"), "ice": ("frozen pond", "icy pond")},
    "smoke": {
        "none": ("no smoke", "smokeless chimney"), "smoke": ("smoking chimney", "chimney smoke"),
    },
    "windows": {"dark": ("dark windows", "unlit windows"), "lit": ("lit windows", "glowing windows")},
    "lamp": {"off": ("lamp off", "unlit lamp"), "on": ("lamp on", "shining lamp")},
    "shadow": {
        "none": ("no shadows", "no cast shadows"), "short": ("short shadows", "small shadows"),
        "long": ("long shadows", "stretched shadows"),
    },
    "umbrella": {"none": ("no umbrella", "person without umbrella"), "open": ("open umbrella", "person with umbrella")},
    "house": {
        "red": ("red house", "red cottage"), "blue": ("blue house", "blue cottage"),
        "yellow": ("yellow house", "yellow cottage"), "white": ("white house", "white cottage"),
    },
    "door": {
        "green": ("green door", "door in green"), "brown": ("brown door", "door in brown"),
        "white": ("white door", "door in white"),
    },
    "car": {
        "none": ("no car", "without a car"), "red": ("red car", "car in red"), "blue": ("blue car", "car in blue"),
    },
    "layout": {
        "left": ("house on the left", "house at left"), "right": ("house on the right", "house at right"),
    },
}
