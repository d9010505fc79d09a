"""Fitting a modular model part by part: by likelihood, or adversarially.

By likelihood, a part is a c-component: the probability of all data is the product of Tian's c-factors, each of which
has its own mechanisms and no others, so that each part is fitted on its own, as ID-GEN does it. Adversarially, a part
is a node of the h-graph, and its mechanisms are matched to the data together with those that came before it, which stay
as they are (Modular-DCM, algorithm 1; Wasserstein distance with gradient penalty, Gumbel-softmax).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..admg import ADMG
from ..errors import CounterfactError
from ..graph import CausalGraph
from ..training import Losses, Plan, Training, Watch
from ..training import run as train
from .hgraph import Part, parts
from .mechanisms import Flow, Mechanism, Table, Values, layers
from .model import ModularModel
from .records import Records

log = logging.getLogger("counterfact")

KIND = "counterfact.modular-training"
METHODS = ("likelihood", "adversarial")


@dataclass(frozen=True)
class Effort:
    """How long and how fast parts are fitted.

    Attributes
    ----------
    steps, batch : updates of each part, and rows in each; a part of a few different rows takes all of them
    learning_rate : peak rate
    restarts : how often a part with hidden causes is begun anew; the likeliest is kept
    """

    steps: int = 1000
    batch: int = 512
    learning_rate: float = 0.03
    restarts: int = 2


# A network that looks at pictures learns at this share of the rate.
SIGHT_PACE = 0.05
LIKELIHOOD, ADVERSARIAL = Effort(), Effort(steps=4000, batch=512, learning_rate=1e-3, restarts=1)
# Beyond it, different rows are not gone through in every step.
MOST_ROWS = 2048
# In place of a probability of 0, whose logarithm is no number.
NEVER = 1e-12


class PartModel(nn.Module):
    """The mechanisms of a part, and how likely the states of its hidden causes are if that is to be fitted as well, out
    of a model that stays as it is otherwise."""

    def __init__(self, model: ModularModel, names: Sequence[str], priors: bool = True) -> None:
        super().__init__()
        self.names = tuple(names)
        self.used = sorted({k for name in names for k in model.behind(name)}) if priors else []
        self.mechanisms = nn.ModuleDict({str(model.coding.index(n)): copy.deepcopy(model.mechanism(n)) for n in names})
        self.priors = nn.ParameterList(copy.deepcopy(model.priors[k]) for k in self.used)

    def into(self, model: ModularModel) -> ModularModel:
        """A model with this part in place of its own; the rest is shared."""
        whole = copy.copy(model)
        whole._modules = dict(model._modules)
        whole.mechanisms = nn.ModuleDict({**dict(model.mechanisms.items()), **dict(self.mechanisms.items())})
        own = dict(zip(self.used, self.priors))
        whole.priors = nn.ParameterList(own.get(k, prior) for k, prior in enumerate(model.priors))
        return whole


class LikelihoodTraining(Training):
    """Maximises the likelihood of a part."""

    def __init__(self, model: ModularModel, names: Sequence[str], data: Records, effort: Effort, seed: int) -> None:
        rows, weights = _different(model, names, data)
        self.rows, self.weights, self.whole = rows, weights, model
        self.batch = len(rows[0]) if len(rows[0]) <= MOST_ROWS else effort.batch
        identity = {"part": list(names), "rows": len(data), "steps": effort.steps, "seed": seed}
        plan = Plan(KIND, identity, self.batch, effort.learning_rate, min(50, effort.steps), 0.98, weight_decay=0.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            part = PartModel(model, names)
            _begin(part)
        super().__init__(part, plan, seed)

    def losses(self) -> Losses:
        places, free = self.rows
        if self.batch == len(places):
            loss = -(self.weights * self.likelihood(self.model, places, free)).sum() / self.weights.sum()
        else:
            share = self.weights.double().numpy()
            chosen = self.choices.choice(len(places), self.batch, p=share / share.sum())
            loss = -self.likelihood(self.model, places[chosen], free[chosen]).mean()
        return {"loss": loss}

    def pace(self, name: str) -> float:
        return SIGHT_PACE if ".eyes." in name else 1.0

    def likelihood(self, part: PartModel, places: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
        return part.into(self.whole).log_likelihood(part.names, places, free)

    @torch.no_grad()
    def score(self) -> float:
        """Mean log-likelihood of the averaged part."""
        places, free = self.rows
        found = [self.likelihood(self.average, p, f) for p, f in zip(places.split(MOST_ROWS), free.split(MOST_ROWS))]
        return float((self.weights * torch.cat(found)).sum() / self.weights.sum())


def _begin(part: PartModel) -> None:
    """Random weights, drawn anew."""
    for module in part.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif hasattr(module, "scores"):
            nn.init.normal_(module.scores)


def _different(model: ModularModel, names: Sequence[str], data: Records) -> tuple[tuple, torch.Tensor]:
    """The different rows of what a part sees that know all of it and leave some free: (places, free), and how many."""
    coding = model.coding
    chosen = sorted({coding.index(n) for name in names for n in (name, *model.causes(name))})
    columns = torch.cat([torch.arange(coding.width)[coding.places[i]] for i in chosen])
    mine = torch.tensor([coding.index(name) for name in names])
    known = data.places[:, columns].isfinite().all(1) & data.free[:, mine].any(1)
    if not known.any():
        raise CounterfactError(
            f"data: there is no row that knows {', '.join(coding.names[i] for i in chosen)}, and in which some of it "
            "was free; add rows, or remove the concept from the graph"
        )
    rows = torch.cat([data.places[known][:, columns], data.free[known][:, mine].to(data.places.dtype)], 1)
    if any(coding.variables[i].side for i in chosen):
        return (data.places[known], data.free[known]), torch.ones(len(rows))
    unique, counts = torch.unique(rows, dim=0, return_counts=True)
    places = torch.zeros(len(unique), coding.width, dtype=data.places.dtype)
    places[:, columns] = unique[:, : len(columns)]
    free = torch.ones(len(unique), len(coding.variables), dtype=torch.bool)
    free[:, mine] = unique[:, len(columns) :] > 0.5
    return (places, free), counts.to(data.places.dtype)


class Critic(nn.Module):
    """Scores rows; how much more real ones get is the distance that is minimised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = layers(width, 1, 128)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.network(rows)[:, 0]


class AdversarialTraining(Training):
    """Makes rows of a part and its context that a critic cannot tell from the data.

    Its two networks are one module, and the loss gives each the gradient of its own aim alone.
    """

    def __init__(self, model: ModularModel, part: Part, data: Records, effort: Effort, seed: int) -> None:
        self.whole, self.part = model, part
        coding = model.coding
        if pictures := [name for name in (*part.names, *part.context, *part.causes) if name in model.pictures]:
            raise CounterfactError(
                f"method: {', '.join(part.names)} cannot be fitted adversarially beside the picture {pictures[0]}, "
                "whose generator would have to draw in every step; choose likelihood"
            )
        self.shown = [*part.causes, *part.context, *part.names]
        known = torch.cat([data.places[:, coding.places[coding.index(n)]] for n in self.shown], 1).isfinite().all(1)
        mine = torch.tensor([coding.index(name) for name in part.names])
        known &= data.free[:, mine].any(1)
        self.places, self.free = data.places[known], data.free[known]
        if not len(self.places):
            raise CounterfactError(f"data: there is no row that knows all of {', '.join(self.shown)}; add rows")
        for name in part.names:
            if not isinstance(model.mechanism(name), (Values, Flow)):
                raise CounterfactError(f"{name}: numbers are fitted adversarially only as a flow; choose that kind")
        identity = {"matched": list(part.names), "rows": len(data), "steps": effort.steps, "seed": seed}
        plan = Plan(KIND, identity, effort.batch, effort.learning_rate, 100, 0.995, weight_decay=0.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            maker = PartModel(model, part.names, priors=False)
            _begin(maker)
            width = sum(coding.variables[coding.index(n)].width + 1 for n in self.shown)
            both = nn.ModuleDict({"maker": maker, "critic": Critic(width)})
        super().__init__(both, plan, seed)

    def losses(self) -> Losses:
        chosen = self.choices.integers(len(self.places), size=self.plan.batch)
        places, free = self.places[chosen], self.free[chosen]
        values = self.whole.split(places)
        real = self.rows(values, free)
        fake = self.rows(self.made(self.model["maker"], values, free), free)
        critic = self.model["critic"]
        with frozen(critic):
            fooling = -critic(fake).mean()
        fake = fake.detach()
        mix = torch.rand(len(real), 1, generator=self.noise)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        slope = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        penalty = 10 * ((slope.norm(dim=1) - 1) ** 2).mean()
        distance = critic(real).mean() - critic(fake).mean()
        return {"loss": fooling - distance + penalty, "distance": distance}

    def rows(self, values: Mapping[str, torch.Tensor], free: torch.Tensor) -> torch.Tensor:
        """What the critic sees."""
        index = [self.whole.coding.index(name) for name in self.shown]
        return torch.cat([*(values[name] for name in self.shown), free[:, index].to(self.places.dtype)], 1)

    def made(self, maker: PartModel, real: Mapping[str, torch.Tensor], free: torch.Tensor) -> dict[str, torch.Tensor]:
        """Values of part and context under real causes; what was set stays as it was set."""
        model = maker.into(self.whole)
        noise = model.noise(len(free), self.noise)
        values = {name: real[name] for name in self.part.causes}
        inside = {*self.part.names, *self.part.context}
        for name in (n for n in model.coding.names if n in inside):
            causes = model.seen(name, values, noise.own[name])
            hidden = torch.cat([causes[:, :0], *(noise.hidden[k] for k in model.behind(name))], 1)
            mechanism = model.mechanism(name)
            if name in self.part.names:
                found = relaxed(mechanism, causes, hidden, noise.own[name], self.noise)
            else:
                found = mechanism.draw(causes, hidden, noise.own[name])
            values[name] = torch.where(free[:, model.coding.index(name), None], found, real[name])
        return values


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it, a module's weights get no gradient."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def relaxed(
    mechanism: Mechanism, causes: torch.Tensor, hidden: torch.Tensor, noise: torch.Tensor, rng: torch.Generator
) -> torch.Tensor:
    """A draw that a gradient goes through: one-hot forwards, softmax backwards (Jang, Gu and Poole 2017)."""
    if not isinstance(mechanism, Values):
        return mechanism.draw(causes, hidden, noise)
    scores = mechanism.logits(causes, hidden)
    gumbel = -torch.log(-torch.log(torch.rand(scores.shape, generator=rng).clamp(1e-9, 1 - 1e-7)))
    soft = (scores + gumbel).softmax(-1)
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return hard + soft - soft.detach()


def fitted(
    model: ModularModel, names: Sequence[str], data: Records, effort: Effort = LIKELIHOOD, seed: int = 0,
    folder: Path | None = None, watch: Callable[[str], Watch] = lambda told: Watch(), told: str = "",
) -> ModularModel:  # fmt: skip
    """The model with one part fitted by likelihood, the likeliest of some restarts; see :func:`fit`."""
    hidden = any(model.behind(name) for name in names)
    if not hidden and all(isinstance(model.mechanism(name), Table) for name in names):
        return counted(model, names, data)
    rounds = effort.restarts if hidden else 1
    tries = []
    for attempt in range(rounds):
        training = LikelihoodTraining(model, names, data, effort, seed + 1000 * attempt)
        _trained(training, None if folder is None else folder / str(attempt), effort, watch(told))
        tries.append(training)
    return max(tries, key=LikelihoodTraining.score).average.into(model)


def counted(model: ModularModel, names: Sequence[str], data: Records) -> ModularModel:
    """The model with tables in which nothing is hidden: the shares of the data are the likeliest.

    Rows of a table that no case has stay even, and are reported.
    """
    part = PartModel(model, names, priors=False)
    for name in names:
        (places, _), weights = _different(model, [name], data)
        values, mechanism = model.split(places), part.mechanisms[str(model.coding.index(name))]
        row = mechanism.row(model.seen(name, values, places), mechanism.sizes)
        cells = torch.zeros_like(mechanism.scores).index_put((row,), weights[:, None] * values[name], accumulate=True)
        cells = cells + data.smoothing
        unseen = cells.sum(1) == 0
        if unseen.any():
            log.warning(
                "data: %d of %d combinations of %s never occur; %s is taken to be anything there", int(unseen.sum()),
                len(cells), ", ".join(model.causes(name)), name,
            )  # fmt: skip
        share = torch.where(unseen[:, None], 1.0, cells)
        mechanism.scores.data = (share / share.sum(1, keepdim=True)).clamp_min(NEVER).log()
    return part.into(model)


def matched(
    model: ModularModel, part: Part, data: Records, effort: Effort = ADVERSARIAL, seed: int = 0,
    folder: Path | None = None, watch: Callable[[str], Watch] = lambda told: Watch(), told: str = "",
) -> ModularModel:  # fmt: skip
    """The model with one part fitted adversarially; see :func:`fit`."""
    training = AdversarialTraining(model, part, data, effort, seed)
    _trained(training, folder, effort, watch(told))
    return training.average["maker"].into(model)


def _trained(training: Training, folder: Path | None, effort: Effort, watch: Watch) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        training.resume(folder)
    if not train(training, folder, effort.steps * training.plan.batch, watch):
        raise KeyboardInterrupt


def fit(
    graph: CausalGraph,
    data: Records,
    folder: str | Path | None = None,
    method: str = "likelihood",
    effort: Effort | None = None,
    seed: int = 0,
    watch: Callable[[str], Watch] = lambda told: Watch(),
    **options: object,
) -> ModularModel:
    """Fit every part of a model of a graph, causes before effects.

    Parameters
    ----------
    graph : its concepts have domains or intervals, or take them from the data's coding
    data : what to learn from
    folder : of checkpoints; a run that was stopped goes on there. Without one nothing is kept
    method : "likelihood" or "adversarial"
    effort : of each part
    seed : of everything random
    watch : makes, from a part in words, what is told of its training and may stop it
    options : of :class:`ModularModel`

    Raises
    ------
    CounterfactError
        If the data lack what a part needs, or training diverges; the last good weights are in the folder.
    KeyboardInterrupt
        If a watch stopped it; what is done so far is in the folder.
    """
    if method not in METHODS:
        raise CounterfactError(f"method: {method!r} is none; choose {' or '.join(METHODS)}")
    effort = effort or (LIKELIHOOD if method == "likelihood" else ADVERSARIAL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ModularModel(data.coding, graph.confounded, **options)
    g = ADMG.of(graph)
    wanted = parts(graph)
    if method == "likelihood":
        wanted = [Part(g.named(mask), (), g.named(g.parents_of(mask))) for mask in g.components(g.everything)]
    for number, part in enumerate(wanted):
        if set(part.names) <= set(model.pictures):
            continue  # its generator is there already
        here = None if folder is None else Path(folder) / f"part-{number}"
        told = f"{number + 1} of {len(wanted)}: {', '.join(part.names)}"
        if method == "likelihood":
            model = fitted(model, part.names, data, effort, seed, here, watch, told)
        else:
            model = matched(model, part, data, effort, seed, here, watch, told)
        log.info("fitted %s", told)
    model.provenance = {"rows": len(data), "method": method, "steps": effort.steps, "seed": seed}
    return model.eval().requires_grad_(False)
