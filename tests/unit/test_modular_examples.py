"""What comes with the pack to ask at once: a table, and a model fitted through pictures."""

from pathlib import Path

import pytest

from causal_core import modular
from causal_core.bench.modular_pictures import pictured
from causal_core.concepts import Concept, Concepts
from causal_core.exact import ExactSCM
from causal_core.identify import identify
from causal_core.modular import examples
from causal_core.modular.model import ModularModel
from causal_core.modular.records import Records
from causal_core.query import parse_query


def test_the_table_is_what_its_model_gives(tmp_path):
    examples.write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == examples.TABLE.read_bytes()


def test_in_the_table_clouds_seem_to_light_lamps():
    exact = ExactSCM(examples.STORMY_COTTAGE)
    concepts = Concepts(tuple(Concept(v, exact.domains[v]) for v in examples.STORMY_COTTAGE.observed))
    doing, seeing = parse_query("P(lamp=on | do(weather))", concepts), parse_query("P(lamp=on | weather)", concepts)
    data = Records.read(examples.TABLE, examples.graph())
    for query in (doing, seeing):
        found = identify(examples.graph(), str(query)).evaluate(data)
        assert found == pytest.approx(exact.answer(query), abs=0.03)
    clear, cloudy = exact.answer(doing)
    assert cloudy - clear < 0.15 and exact.answer(seeing)[1] - exact.answer(seeing)[0] > 0.45


def test_the_bundled_model_is_that_of_the_benchmark():
    model = ModularModel.load(Path(modular.__file__).parent / "weights" / "front_door.safetensors")
    p = pictured("frontdoor_image", 1000)
    assert model.pictures == ("picture",) and model.graph().edges == p.graph.edges
    assert model.graph().confounded == p.graph.confounded
    assert identify(model.graph(), "P(answer | do(x))").identifiable
