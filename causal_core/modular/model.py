"""The modular model: a structural causal model made of parts, in which any of them may be a pretrained generator.

Every variable has one mechanism, every clique of confounded variables one hidden cause with a few states. What has been
fitted answers any identifiable question: set variables, let the rest follow, with the same noise in every world.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..autoencoder.coding import Coding
from ..concepts import Concept, Concepts
from ..errors import CounterfactError, finite, unknown
from ..graph import CausalGraph
from ..weights import read_tensors, write_tensors
from .mechanisms import KINDS, OF_NUMBERS, OF_VALUES, Picture, Shape, usual

if TYPE_CHECKING:
    from .images import ConditionalSampler

KIND, SCHEMA_VERSION = "counterfact.modular", 1
STATES = 8
MOST_COMBINATIONS = 4096
# Cases whose pictures are in memory at a time.
CHUNK = 512

Values = dict[str, torch.Tensor]


class Noise(NamedTuple):
    """Everything exogenous of some cases: states of the hidden causes, one-hot, and two uniform numbers a variable."""

    hidden: list[torch.Tensor]
    own: dict[str, torch.Tensor]

    def rows(self, chosen: torch.Tensor | slice) -> Noise:
        """The noise of some of the cases."""
        return Noise([h[chosen] for h in self.hidden], {name: e[chosen] for name, e in self.own.items()})


@dataclass(frozen=True)
class HiddenCause:
    """What a clique of confounded variables has in common: one of ``states`` states."""

    names: tuple[str, ...]
    states: int


class ModularModel(nn.Module):
    """Mechanisms and hidden causes of a graph.

    Parameters
    ----------
    coding : variables, causes first
    confounded : pairs with a latent confounder
    states : of each hidden cause
    kinds : "table", "network", "mixture" or "flow" by variable; what suits it for those that are not named

    Attributes
    ----------
    concepts : the variables as people know them: in their own order and with their phrases, see :func:`settled`
    pictures : names of the variables that are pictures; a generator draws them, see :meth:`plugged`
    provenance : where the model comes from, JSON data
    """

    def __init__(
        self,
        coding: Coding,
        confounded: Iterable[Sequence[str]] = (),
        states: int = STATES,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        import networkx as nx

        super().__init__()
        self.coding, self.confounded = coding, tuple(sorted(tuple(sorted(pair)) for pair in confounded))
        self.states = int(finite(states, "states", 2, 256))
        self.kinds = dict(kinds or {})
        self.provenance: dict[str, Any] = {}
        self.concepts = Concepts(tuple(Concept(v.name, v.domain, interval=v.interval) for v in coding.variables))
        cliques = sorted(tuple(sorted(clique)) for clique in nx.find_cliques(nx.Graph(self.confounded)))
        self.hidden = tuple(HiddenCause(clique, self.states) for clique in cliques)
        self.priors = nn.ParameterList(torch.zeros(self.states) for _ in self.hidden)
        self.mechanisms = nn.ModuleDict()
        for name in self.kinds:
            if name not in coding.names:
                raise unknown("variable in kinds:", name, coding.names, "variables")
        self.pictures = tuple(v.name for v in coding.variables if v.side)
        for i, (name, variable) in enumerate(zip(coding.names, coding.variables)):
            if variable.side:
                self.mechanisms[str(i)] = self.picture(name)
                continue
            shape = self.shape(name)
            kind = self.kinds.get(name, usual(shape))
            fitting = OF_NUMBERS if shape.values == 1 else OF_VALUES
            if kind not in fitting or kind == "table" and math.isinf(shape.rows):
                raise CounterfactError(
                    f"the mechanism of {name} cannot be a {kind}; choose {' or '.join(fitting)}"
                    + (", and a table only if all causes have lists of values" if shape.values > 1 else "")
                )
            self.mechanisms[str(i)] = KINDS[kind](shape)

    def picture(self, name: str, *generator: Any) -> Picture:
        """The mechanism of a picture, with what draws it.

        Raises
        ------
        CounterfactError
            If it has a hidden cause, or a picture causes it: a generator is told labels, and nothing hidden.
        """
        if self.behind(name):
            raise CounterfactError(
                f"graph: the picture {name} has a hidden cause, of which no generator can be told; remove the link, or "
                f"put a label that the hidden cause acts on between it and {name}"
            )
        causes = [self.coding.variables[self.coding.index(cause)] for cause in self.causes(name)]
        for cause in causes:
            if cause.side:
                raise CounterfactError(
                    f"graph: the picture {cause.name} causes the picture {name}; put labels between them"
                )
        return Picture(name, self.coding.variables[self.coding.index(name)].side, causes, *generator)

    def plugged(
        self, generators: Mapping[str, ConditionalSampler], check: Callable[[], object] = lambda: None
    ) -> ModularModel:
        """The same model with pretrained generators of its pictures, by name; they stay as they are.

        ``check`` is called before each batch of pictures and may raise to end it.
        """
        found = copy.copy(self)
        found._modules = dict(self._modules)
        own = {str(self.coding.index(n)): self.picture(n, generator, check) for n, generator in generators.items()}
        found.mechanisms = nn.ModuleDict({**dict(self.mechanisms.items()), **own})
        return found

    @classmethod
    def of(cls, graph: CausalGraph, **options: Any) -> ModularModel:
        """The model of a graph whose concepts have domains or intervals."""
        model = cls(Coding.of(graph), graph.confounded, **options)
        model.concepts = settled(graph.concepts, model.coding)
        return model

    def graph(self) -> CausalGraph:
        """The causal graph, with the values or the interval of every variable, and without factual values."""
        edges = [(cause, name) for name in self.coding.names for cause in self.causes(name)]
        return CausalGraph.from_edges(edges, self.confounded, self.concepts)

    def behind(self, name: str) -> tuple[int, ...]:
        """Numbers of the hidden causes of a variable."""
        return tuple(k for k, hidden in enumerate(self.hidden) if name in hidden.names)

    def causes(self, name: str) -> tuple[str, ...]:
        """Its direct causes that are not hidden."""
        return tuple(self.coding.names[p] for p in self.coding.parents[self.coding.index(name)])

    def shape(self, name: str) -> Shape:
        """What the mechanism of a variable sees and makes."""
        causes = [self.coding.variables[self.coding.index(cause)] for cause in self.causes(name)]
        return Shape(
            tuple(v.width for v in causes if not v.side), (self.states,) * len(self.behind(name)),
            self.coding.variables[self.coding.index(name)].width, tuple(v.side for v in causes if v.side),
        )  # fmt: skip

    def mechanism(self, name: str) -> nn.Module:
        """The mechanism of a variable."""
        return self.mechanisms[str(self.coding.index(name))]

    def split(self, places: torch.Tensor) -> Values:
        """Latent vectors [N, width] by variable."""
        return {name: places[:, where] for name, where in zip(self.coding.names, self.coding.places)}

    def seen(self, name: str, values: Values, like: torch.Tensor) -> torch.Tensor:
        """Places [N, ...] of the direct causes of a variable, pictures last; of the kind and length of ``like``."""
        causes = sorted(self.causes(name), key=self.pictures.__contains__)
        return torch.cat([like.new_zeros(len(like), 0), *(values[cause] for cause in causes)], 1)

    def log_likelihood(self, names: Sequence[str], places: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
        """Log-probability of some variables given their causes, summed over what is hidden.

        Parameters
        ----------
        names : whole c-components
        places, free : [N, width] and [N, variables]; what was set says nothing of its own mechanism

        Returns
        -------
        [N]; Tian's c-factor Q of each row, so that the sum over all parts is the log-likelihood of the rows
        """
        used = sorted({k for name in names for k in self.behind(name)})
        count = self.states ** len(used)
        if count > MOST_COMBINATIONS:
            raise CounterfactError(
                f"{', '.join(names)} have {len(used)} hidden causes with {count} states together, too many to sum "
                "over: take fewer states, or fit them adversarially"
            )
        states = self._combinations(len(used)).to(places.device)
        total = places.new_zeros(len(places), count)
        for at, k in enumerate(used):
            total = total + self.priors[k].log_softmax(0)[states[:, at]]
        values = self.split(places)
        for name in names:
            own = [used.index(k) for k in self.behind(name)]
            # What this mechanism sees of the hidden causes, and which of it belongs to each combination of all.
            seen = self._combinations(len(own)).to(places.device)
            back = (states[:, own] * self.states ** torch.arange(len(own) - 1, -1, -1, device=places.device)).sum(1)
            one_hot = F.one_hot(seen, self.states).flatten(1).to(places.dtype)
            found = self.mechanism(name).log_prob(values[name], self.seen(name, values, places), one_hot)
            total = total + (found * free[:, self.coding.index(name), None])[:, back]
        return total.logsumexp(1)

    def _combinations(self, count: int) -> torch.Tensor:
        """States of some hidden causes together, [states ** count, count]."""
        found = list(itertools.product(range(self.states), repeat=count))
        return torch.tensor(found, dtype=torch.long).reshape(len(found), count)

    def noise(self, count: int, rng: torch.Generator) -> Noise:
        """Exogenous noise of some cases."""
        device = rng.device
        hidden = []
        for prior in self.priors:
            share = prior.detach().softmax(0).to(device)
            state = torch.multinomial(share.expand(count, -1), 1, generator=rng)[:, 0]
            hidden.append(F.one_hot(state, self.states).to(share.dtype))
        own = {name: torch.rand(count, 2, generator=rng, device=device) for name in self.coding.names}
        return Noise(hidden, own)

    def needed(self, wanted: Iterable[str], do: Iterable[str] = ()) -> tuple[str, ...]:
        """Some variables and all on which they depend where some are set, causes first."""
        needed = set(wanted)
        for name in reversed(self.coding.names):
            if name in needed and name not in do:
                needed.update(self.causes(name))
        return tuple(name for name in self.coding.names if name in needed)

    @torch.no_grad()
    def propagate(
        self, noise: Noise, do: Mapping[str, torch.Tensor], wanted: Iterable[str] | None = None
    ) -> Values:  # fmt: skip
        """Values [N, places] of labels where some are set; the same noise is the same cases.

        Parameters
        ----------
        noise : of N cases
        do : places [places] of what is set
        wanted : labels; all of them if not given. A picture is drawn only if one of them depends on it, and is not
            among the values: :meth:`drawn` gives it
        """
        labels = [name for name in self.coding.names if name not in self.pictures]
        wanted = [name for name in labels if wanted is None or name in set(wanted)]
        order, count = self.needed(wanted, do), len(next(iter(noise.own.values())))
        step = CHUNK if set(order) & set(self.pictures) else max(count, 1)
        chunks = [self._follow(noise.rows(slice(at, at + step)), do, order) for at in range(0, max(count, 1), step)]
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in labels if name in order}

    def _follow(self, noise: Noise, do: Mapping[str, torch.Tensor], order: Iterable[str]) -> Values:
        values: Values = {}
        for name in order:
            own = noise.own[name]
            if name in do:
                values[name] = do[name].expand(len(own), -1)
                continue
            hidden = torch.cat([own[:, :0], *(noise.hidden[k] for k in self.behind(name))], 1)
            values[name] = self.mechanism(name).draw(self.seen(name, values, own), hidden, own)
        return values

    def drawn(self, name: str, noise: Noise, values: Values) -> np.ndarray:
        """The picture of that name in some cases as its generator draws it, uint8 [N, H, W, 3].

        Parameters
        ----------
        name : one of ``pictures``
        noise, values : of N cases in a world, as :meth:`propagate` takes and gives them
        """
        own = noise.own[name]
        return self.mechanism(name).pictures(self.seen(name, values, own), own)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file that :meth:`load` reads."""
        document = {
            "kind": KIND, "schema_version": SCHEMA_VERSION, "variables": self.coding.to_dict(),
            "confounded": [list(pair) for pair in self.confounded], "states": self.states, "kinds": self.kinds,
            "concepts": self.concepts.to_list(), "provenance": self.provenance,
        }  # fmt: skip
        write_tensors(path, self.state_dict(), document)

    @classmethod
    def load(cls, path: str | Path) -> ModularModel:
        """Read what :meth:`save` wrote; raises CounterfactError for anything else."""
        tensors, document = read_tensors(path, KIND, SCHEMA_VERSION)
        try:
            model = cls(
                Coding.from_dict(document["variables"]), document["confounded"], document["states"], document["kinds"]
            )
            model.load_state_dict(tensors)
            model.concepts = settled(Concepts.from_list(document["concepts"]), model.coding)
            if len(model.concepts) < len(model.coding.names):
                raise ValueError("a concept is missing")
            model.provenance = dict(document["provenance"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CounterfactError(f"{path}: the file is damaged ({error}); fit the model again") from None
        return model.eval().requires_grad_(False)


def settled(concepts: Concepts, coding: Coding) -> Concepts:
    """Concepts with the values or the intervals that a coding has of them, without factual values.

    Phrases of values that the coding does not have are left out.
    """
    found = []
    for concept in concepts:
        variable = coding.variables[coding.index(concept.name)]
        bare = Concept(variable.name, variable.domain, interval=variable.interval)
        phrases = {value: ways for value, ways in concept.phrases.items() if _takes(bare, value)}
        found.append(replace(bare, phrases=phrases))
    return Concepts(tuple(found))


def _takes(concept: Concept, value: str) -> bool:
    try:
        concept.match(value)
    except CounterfactError:
        return False
    return True
