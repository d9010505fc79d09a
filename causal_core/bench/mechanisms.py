"""Mechanisms and questions in plain words, as a language model has them, against the cottage world.

Values: for each child and each change of one of its causes, whether the model's value under the new causes is the most
probable one of the true mechanism. Counterfactuals: the same after abduction from each factual value, weighted by how
often it occurs. Questions: sentences with the interventions that they mean, read from their words alone and with the
model's help; a part of them was looked at while the reading was written, the rest was not, except that "after dark" led
to one correction after it had been measured.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping

from ..concepts import Concept, Concepts
from ..discovery.cli import open_for
from ..discovery.mechanisms import language_mechanism
from ..discovery.what_if import what_if
from ..errors import CounterfactError
from ..graph import CausalGraph
from ..language.answers import Cached
from ..language.model import LanguageModel
from ..scm import SCM, Variable
from ..worlds import get_world

SCENE = 302
DEVELOPED: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("What if it were winter?", {"season": "winter"}),
    ("What if it had rained?", {"precipitation": "rain"}),
    ("What if it was night?", {"time": "night"}),
    ("What if the house were blue?", {"house": "blue"}),
    ("what if there was no car", {"car": "none"}),
    ("What if it were winter and night?", {"season": "winter", "time": "night"}),
    ("What if the pond had frozen over?", {"pond": "ice"}),
    ("Suppose it had snowed.", {"precipitation": "snow"}),
    ("What if there were snow on the ground?", {"ground": "snow"}),
    ("What if nobody had lit the lamp?", {"lamp": "off"}),
    ("What if the chimney were smoking?", {"smoke": "smoke"}),
    ("What if the tree had lost its leaves?", {"foliage": "bare"}),
    ("What if the air was freezing?", {"temperature": "cold"}),
    ("What if the sky were overcast?", {"weather": "cloudy"}),
    ("Imagine the person without an umbrella.", {"umbrella": "none"}),
    ("What if the front door was painted white?", {"door": "white"}),
    ("What if the sun had just set?", {"time": "dusk"}),
    ("What if the house stood on the right?", {"layout": "right"}),
    ("What if a dragon attacked the village?", {}),
    ("What would happen if it were autumn with a red car?", {"season": "autumn", "car": "red"}),
)
HELD_OUT: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("What if this were spring?", {"season": "spring"}),
    ("What if it hadn't snowed?", {"precipitation": "none"}),
    ("What would it look like after dark?", {"time": "night"}),
    ("What if the cottage was yellow?", {"house": "yellow"}),
    ("What if a blue car was parked there?", {"car": "blue"}),
    ("What if it were a cold, clear day?", {"temperature": "cold", "weather": "clear", "time": "day"}),
    ("What if the windows were lit?", {"windows": "lit"}),
    ("And if the lamp was switched off?", {"lamp": "off"}),
    ("What if the ground was covered in puddles?", {"ground": "puddles"}),
    ("What if there were no shadows at all?", {"shadow": "none"}),
    ("What if it started raining?", {"precipitation": "rain"}),
    ("What if the water in the pond turned to ice?", {"pond": "ice"}),
    ("What if the tree was in bloom?", {"foliage": "blossom"}),
    ("What if somebody opened an umbrella?", {"umbrella": "open"}),
    ("What if the weather were mild?", {"temperature": "mild"}),
    ("What if it were summer instead of winter?", {"season": "summer"}),
    ("What if the president resigned?", {}),
    ("What if the clouds went away?", {"weather": "clear"}),
    ("What if the fire in the fireplace had gone out?", {"smoke": "none"}),
    ("What if the sun stood low and the shadows were long?", {"shadow": "long"}),
)
SENTENCES = {"developed": DEVELOPED, "held_out": HELD_OUT}


def run(args: argparse.Namespace) -> dict[str, float]:
    """All metrics as one flat mapping of shares, 0 to 1.

    Returns
    -------
    dict
        ``mechanisms.value`` and ``mechanisms.counterfactual`` are means over the children; with ``.CHILD`` those of one
        child; with ``.majority`` of always saying the child's commonest value, with ``.keep`` of always keeping the
        factual value, with ``.chance`` of guessing. ``what_if.SET.words.RESULT`` from words alone and
        ``what_if.SET.model.RESULT`` with the model, RESULT being right, wrong (another intervention) or refused.
    """
    model = open_for(args)
    # The same configuration of causes comes up in many changes.
    with tempfile.TemporaryDirectory() as folder:
        return measured(None if model is None else Cached(model, folder))


def measured(model: LanguageModel | None) -> dict[str, float]:
    """All metrics; without a model those of words alone and of guessing."""
    from tqdm import tqdm

    metrics: dict[str, float] = {}
    for name, sentences in SENTENCES.items():
        metrics |= _questions(f"what_if.{name}.words", sentences, None)
        if model is not None:
            metrics |= _questions(f"what_if.{name}.model", sentences, model)
    scm = get_world("cottage").scm
    children = [v for v in scm.variables if not v.hidden and any(not scm[p].hidden for p in v.parents)]
    found = {child.name: _child(scm, child, model) for child in tqdm(children, unit="child")}
    for key in next(iter(found.values())):
        metrics[f"mechanisms.{key}"] = sum(shares[key] for shares in found.values()) / len(found)
        metrics |= {f"mechanisms.{key}.{name}": shares[key] for name, shares in found.items() if "." not in key}
    return metrics


def table(metrics: Mapping[str, float]) -> str:
    """The metrics as Markdown tables."""
    columns = ("right", "wrong", "refused")
    lines = ["| sentences | read by | right | wrong | refused |", "|---|---|---|---|---|"]
    for name, how in itertools.product(SENTENCES, ("words", "model")):
        if f"what_if.{name}.{how}.right" in metrics:
            shares = " | ".join(f"{metrics[f'what_if.{name}.{how}.{column}']:.2f}" for column in columns)
            lines.append(f"| {name} | {how} | {shares} |")
    lines += ["", "| mechanisms | share right |", "|---|---|"]
    lines += [f"| {key[11:]} | {x:.2f} |" for key, x in metrics.items() if key.startswith("mechanisms.")]
    return "\n".join(lines)


def _questions(prefix: str, sentences, model: LanguageModel | None) -> dict[str, float]:
    world = get_world("cottage")
    concepts = world.concepts(world.sample(SCENE).values)
    counts = Counter()
    for sentence, meant in sentences:
        try:
            said = what_if(sentence, concepts, model).do
        except CounterfactError:
            counts["refused" if meant else "right"] += 1
        else:
            counts["right" if said == meant else "wrong"] += 1
    return {f"{prefix}.{key}": counts[key] / len(sentences) for key in ("right", "wrong", "refused")}


def _child(scm: SCM, child: Variable, model: LanguageModel | None) -> dict[str, float]:
    """Shares of right values of one child, over all changes of one cause."""
    seen = [p for p in child.parents if not scm[p].hidden]
    worlds = [dict(zip(seen, values)) for values in itertools.product(*(scm[p].domain for p in seen))]
    likeliest = [_likeliest(_row(scm, child, world)) for world in worlds]
    common, often = Counter(likeliest).most_common(1)[0]
    shares = Counter({"value.majority": often / len(worlds), "value.chance": 1 / len(child.domain)})
    changes = [(a, b) for a in worlds for b in worlds if sum(a[p] != b[p] for p in seen) == 1]
    for before, after in changes:
        weights = _row(scm, child, before)
        truths = {v: _likeliest(_counterfactual(scm, child, before, after, v)) for v, w in weights.items() if w > 0}
        shares["counterfactual.keep"] += sum(weights[v] for v in truths if truths[v] == v) / len(changes)
        shares["counterfactual.majority"] += sum(weights[v] for v in truths if truths[v] == common) / len(changes)
        if model is None:
            continue
        right = _asked(child, before, after, None, model) == _likeliest(_row(scm, child, after))
        shares["value"] += right / len(changes)
        said = {v: _asked(child, before, after, v, model) for v in truths}
        shares["counterfactual"] += sum(weights[v] for v in truths if said[v] == truths[v]) / len(changes)
    return dict(shares)


def _asked(child: Variable, before: Mapping[str, str], after: Mapping[str, str], factual: str | None, model) -> str:
    """What the model's mechanism makes of a child."""
    domains = {p: tuple({before[p], after[p]}) for p in before} | {child.name: child.domain}
    values = {**before, **({} if factual is None else {child.name: factual})}
    concepts = Concepts(tuple(Concept(name, domain, values.get(name)) for name, domain in domains.items()))
    graph = CausalGraph.from_edges([(p, child.name) for p in before], concepts=concepts)
    answer = language_mechanism(graph, model)((child.name,), {**values, **after})[child.name]
    return factual if answer.value is None else answer.value


def _hidden(scm: SCM, child: Variable) -> Iterator[tuple[dict[str, str], float]]:
    """Values of the hidden causes with their probabilities."""
    hidden = [p for p in child.parents if scm[p].hidden]
    for values in itertools.product(*(scm[h].domain for h in hidden)):
        weight = 1.0
        for name, value in zip(hidden, values):
            weight *= scm[name].table[()][scm[name].domain.index(value)]
        yield dict(zip(hidden, values)), weight


def _row(scm: SCM, child: Variable, world: Mapping[str, str]) -> dict[str, float]:
    """Probabilities of a child's values under observed causes."""
    row = Counter()
    for hidden, weight in _hidden(scm, child):
        for value, p in zip(child.domain, child.table[tuple({**world, **hidden}[p] for p in child.parents)]):
            row[value] += weight * p
    return row


def _counterfactual(
    scm: SCM, child: Variable, before: Mapping[str, str], after: Mapping[str, str], factual: str
) -> dict[str, float]:
    """Probabilities, up to a factor, of a child's values after a change of its causes."""
    posterior = Counter()
    for hidden, weight in _hidden(scm, child):
        low, high = child.interval([{**before, **hidden}[p] for p in child.parents], factual)
        for value in child.domain:
            a, b = child.interval([{**after, **hidden}[p] for p in child.parents], value)
            posterior[value] += weight * max(min(b, high) - max(a, low), 0.0)
    return posterior


def _likeliest(row: Mapping[str, float]) -> str:
    return max(row, key=lambda value: row[value])
