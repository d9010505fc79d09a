"""Graphs and pairs whose causes are known, to score discovery on.

Structures of the Bayesian network repository (Scutari, bnlearn) with names in plain words, the graphs of this pack's
own worlds, and small scenes of our own. Those marked as development graphs were looked at while phrasings and constants
were chosen: what is reached on them says little about others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..concepts import Concept, Concepts, parse_concepts
from ..graph import CausalGraph, parse_edges
from ..worlds import get_world


@dataclass(frozen=True)
class Known:
    """A known graph.

    Attributes
    ----------
    make : builds the graph
    source : who says so
    development : whether discovery was tuned on it
    """

    make: Callable[[], CausalGraph]
    source: str
    development: bool = False


def _graph(children: str) -> Callable[[], CausalGraph]:
    """A maker of a graph from lines `cause: effect, effect`; concepts are listed by name, not by causal order."""

    def make() -> CausalGraph:
        edges = []
        for line in filter(str.strip, children.splitlines()):
            cause, _, effects = line.partition(":")
            edges += [(cause.strip(), effect.strip()) for effect in effects.split(",")]
        names = sorted({name for edge in edges for name in edge}, key=str.casefold)
        return CausalGraph.from_edges(edges, concepts=Concepts(tuple(map(Concept, names))))

    return make


def _scene(concepts: str, edges: str) -> Callable[[], CausalGraph]:
    """A maker of a graph from typed concepts and edges."""
    return lambda: CausalGraph.from_edges(*parse_edges(edges), parse_concepts(concepts))


GRAPHS: dict[str, Known] = {
    "cottage": Known(lambda: get_world("cottage").graph(), "the cottage world of this pack"),
    "pendulum": Known(lambda: get_world("pendulum").graph(), "Yang et al., CausalVAE, CVPR 2021"),
    "cancer": Known(
        _graph(
            """
            air pollution: lung cancer
            smoking: lung cancer
            lung cancer: chest x-ray, shortness of breath
            """
        ),
        "Korb and Nicholson, Bayesian Artificial Intelligence, 2010",
        development=True,
    ),
    "survey": Known(
        _graph(
            """
            age: education
            sex: education
            education: occupation, size of the city
            occupation: means of transport
            size of the city: means of transport
            """
        ),
        "Scutari and Denis, Bayesian Networks with Examples in R, 2014",
        development=True,
    ),
    "asia": Known(
        _graph(
            """
            visit to Asia: tuberculosis
            smoking: lung cancer, bronchitis
            tuberculosis: tuberculosis or lung cancer
            lung cancer: tuberculosis or lung cancer
            tuberculosis or lung cancer: chest x-ray, shortness of breath
            bronchitis: shortness of breath
            """
        ),
        "Lauritzen and Spiegelhalter, Journal of the Royal Statistical Society B 50(2), 1988",
    ),
    "sachs": Known(
        _graph(
            """
            protein kinase C: protein kinase A, Raf, Mek, Jnk, p38
            protein kinase A: Raf, Mek, Erk, Akt, Jnk, p38
            Raf: Mek
            Mek: Erk
            Erk: Akt
            phospholipase C gamma: PIP3, PIP2
            PIP3: PIP2
            """
        ),
        "Sachs et al., Science 308, 2005, as in the bnlearn repository",
    ),
    "child": Known(
        _graph(
            """
            birth asphyxia: heart disease
            heart disease: age at presentation, left ventricular hypertrophy, ductus flow, cardiac mixing
            heart disease: lung parenchyma, lung blood flow, sickness
            sickness: age at presentation, grunting
            ductus flow: distribution of hypoxia
            cardiac mixing: distribution of hypoxia, hypoxia under oxygen
            lung parenchyma: hypoxia under oxygen, carbon dioxide, chest x-ray, grunting
            lung blood flow: chest x-ray
            left ventricular hypertrophy: hypertrophy report
            distribution of hypoxia: lower body oxygen
            hypoxia under oxygen: lower body oxygen, upper body oxygen
            carbon dioxide: carbon dioxide report
            chest x-ray: x-ray report
            grunting: grunting report
            """
        ),
        "Spiegelhalter and Cowell, Bayesian Statistics 4, 1992, as in the bnlearn repository",
    ),
}

# Scenes as an artist would list them, for the choice of phrasings and constants only.
DEVELOPMENT: dict[str, Known] = {
    name: Known(make, "a scene of our own", development=True)
    for name, make in {
        "street": _scene(
            """
            reflections: none, bright
            road: dry, wet
            shop sign: red, green
            street lights: off, on
            time of day: noon, night
            traffic: light, heavy
            umbrellas: closed, open
            weather: sunny, rainy
            """,
            """
            weather -> road -> reflections
            weather -> umbrellas
            weather -> traffic
            time of day -> street lights -> reflections
            time of day -> traffic
            """,
        ),
        "beach": _scene(
            """
            boat: blue, white
            flag: hanging, fluttering
            season: summer, winter
            sunbathers: none, many
            swimmers: none, many
            water: warm, cold
            waves: flat, high
            wind: calm, strong
            """,
            """
            wind -> waves -> swimmers
            wind -> flag
            season -> water -> swimmers
            season -> sunbathers
            """,
        ),
        "kitchen": _scene(
            """
            lid: open, closed
            outdoor temperature: warm, cold
            pot: cold, hot
            steam: none, rising
            stove flame: off, burning
            wall tiles: white, blue
            window: clear, fogged
            """,
            """
            stove flame -> pot -> steam -> window
            lid -> steam
            outdoor temperature -> window
            """,
        ),
        "portrait": _scene(
            """
            age: young, old
            background: green, grey
            hair: brown, grey
            lamp: off, on
            mood: happy, sad
            shadow: none, sharp
            shirt: red, black
            smile: none, broad
            wrinkles: none, deep
            """,
            """
            age -> wrinkles
            age -> hair
            mood -> smile -> wrinkles
            lamp -> shadow
            """,
        ),
    }.items()
}

# (cause, effect) on which people agree.
PAIRS = (
    ("rainfall", "river level"), ("altitude", "air temperature"), ("fire", "smoke"), ("exercise", "heart rate"),
    ("sunlight", "plant growth"), ("age", "grey hair"), ("alcohol", "reaction time"),
    ("earthquake", "collapsed houses"), ("virus", "fever"), ("coffee", "sleeplessness"), ("wind", "waves"),
    ("speed", "braking distance"), ("studying", "exam grade"), ("hunger", "eating"), ("salty food", "thirst"),
    ("moon", "tides"), ("burglary", "alarm"), ("cold weather", "heating bill"), ("thrown stone", "broken window"),
    ("traffic jam", "late arrival"),
)  # fmt: skip
DEVELOPMENT_PAIRS = (
    ("heavy rain", "flood"), ("smoking", "cough"), ("night", "street lights"), ("flour price", "bread price"),
    ("frost", "frozen pond"), ("running", "sweat"), ("pollen", "sneezing"), ("drought", "crop failure"),
    ("loud music", "hearing loss"), ("practice", "skill"), ("season", "clothing"), ("heat", "ice cream sales"),
)  # fmt: skip
