"""Invert Picture: a trajectory instead of an inversion of its own, and what is refused."""

from __future__ import annotations

import pytest
import torch

STEPS = 6


@pytest.fixture
def abduct(pack, comfy_model, scene):
    """Run Invert Picture; returns the trajectory."""

    def run(model=None, latent=None, graph=None, seed=3, steps=STEPS, **options):
        node = pack("nodes.abduct").CSGInvert
        output = node.execute(
            model or comfy_model.model, comfy_model.clip, latent or scene.latent, graph or scene.graph, seed, steps,
            **options,
        )  # fmt: skip
        return output.args[0]

    return run


@pytest.fixture
def sample(pack, comfy_model, scene):
    """Run Sample Counterfactual; returns the latent."""

    def run(model=None, latent=None, plan=None, seed=3, steps=STEPS, strength=1.0, **options):
        node = pack("nodes.csg").CSGSampler
        return node.execute(
            model or comfy_model.model, comfy_model.clip, latent or scene.latent, plan or scene.plan, seed, steps,
            strength, **options,
        ).args[0]["samples"]  # fmt: skip

    return run


def with_lora(comfy_model, strength: float = 1.0, seed: int = 0):
    """The demo model with a LoRA on one layer, as Load LoRA leaves it."""
    from comfy.weight_adapter.lora import LoRAAdapter

    key = next(name for name in comfy_model.model.model.state_dict() if name.endswith("attn2.to_q.weight"))
    high, wide = comfy_model.model.model.state_dict()[key].shape
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(high, 2, generator=generator), torch.randn(2, wide, generator=generator)
    model = comfy_model.model.clone()
    assert model.add_patches({key: LoRAAdapter({"lora"}, (up, down, 1.0, None, None, None))}, strength)
    return model


@pytest.fixture(scope="module")
def trajectory(pack, comfy_model, scene):
    with torch.inference_mode():
        node = pack("nodes.abduct").CSGInvert
        return node.execute(comfy_model.model, comfy_model.clip, scene.latent, scene.graph, 3, STEPS).args[0]


def test_sampling_is_the_same_with_and_without_it(sample, trajectory):
    # The seed is that of the inversion.
    assert torch.equal(sample(trajectory=trajectory, seed=99), sample())


def test_it_serves_several_edits(pack, scene, sample, trajectory):
    plans = pack("causal_core.plan")
    other = plans.propagate(scene.graph, plans.Intervention({"time": "night"}))
    assert torch.equal(sample(trajectory=trajectory, plan=other), sample(plan=other))
    assert torch.equal(sample(trajectory=trajectory, mode="fused"), sample(mode="fused"))


def test_pictures_of_a_batch(scene, abduct, sample):
    found = abduct(latent=scene.batch)
    assert len(found) == 2
    assert torch.equal(sample(latent=scene.batch, trajectory=found), sample(latent=scene.batch))


def test_deterministic_samplers(abduct, sample):
    assert torch.equal(sample(trajectory=abduct(eta=0.0), eta=0.0), sample(eta=0.0))
    ddim = abduct(eta=0.0, method="ddim")
    assert not torch.equal(sample(trajectory=ddim, eta=0.0), sample(eta=0.0))


def test_ddim_inversion_also_returns_the_source(scene, abduct, sample):
    found = sample(trajectory=abduct(eta=0.0, method="ddim"), eta=0.0, strength=0.0)
    assert (found - scene.latent["samples"]).abs().max() < 1e-4


@pytest.mark.parametrize("other, message", [
    ({"steps": 7}, "another number of steps .6, here 7"),
    ({"skip": 0.2}, "another skip .0.1, here 0.2"),
    ({"eta": 0.5}, "another sampler .eta 1, here 0.5"),
])  # fmt: skip
def test_another_schedule_is_refused(sample, error, trajectory, other, message):
    with pytest.raises(error, match=f"trajectory: it was made .*{message}"):
        sample(trajectory=trajectory, **other)


def test_another_picture_is_refused(scene, sample, error, trajectory):
    with pytest.raises(error, match="trajectory: it was made of 1 pictures, the latent has 2"):
        sample(trajectory=trajectory, latent=scene.batch)
    with pytest.raises(error, match="trajectory: it was made from another picture; connect the same latent"):
        sample(trajectory=trajectory, latent={"samples": scene.batch["samples"][1:]})
    with pytest.raises(error, match="trajectory: .* another size .16 x 16 latent pixels, here 12 x 16"):
        sample(trajectory=trajectory, latent={"samples": scene.latent["samples"][..., :12]})


def test_another_caption_is_refused(pack, scene, sample, error, trajectory):
    plans = pack("causal_core.plan")
    graph = pack("causal_core.graph").CausalGraph(scene.graph.concepts.replace("house", value="blue"))
    plan = plans.propagate(graph, plans.Intervention({"season": "winter"}))
    with pytest.raises(error, match="trajectory: .* another caption .*yellow house.*here .*blue house"):
        sample(trajectory=trajectory, plan=plan)


def test_another_model_is_refused(comfy_model, sample, error, trajectory):
    with pytest.raises(error, match="trajectory: it was made with another model .DemoBase [0-9a-f]{8}, here DemoBase"):
        sample(with_lora(comfy_model), trajectory=trajectory)


def test_ddim_inversion_needs_the_deterministic_sampler(abduct, error):
    with pytest.raises(error, match="eta: DDIM inversion belongs to the deterministic sampler"):
        abduct(method="ddim")
    with pytest.raises(error, match="method: 'magic' is none of edit-friendly, ddim"):
        abduct(method="magic")


@pytest.mark.parametrize("method, count", [("edit-friendly", STEPS), ("ddim", 2 * STEPS)])
def test_progress_counts_all_steps(monkeypatch, abduct, method, count):
    import latent_preview

    seen = []
    monkeypatch.setattr(latent_preview, "prepare_callback", lambda model, steps: lambda *args: seen.append(args))
    abduct(method=method, eta=0.0)
    assert [(step, total) for step, *_, total in seen] == [(step, count) for step in range(count)]


class TestFingerprint:
    @pytest.fixture
    def of(self, pack):
        return pack("nodes.abduct").fingerprint

    def test_loading_does_not_matter(self, comfy_model, of):
        import comfy.model_management as memory

        model, patched = comfy_model.model, with_lora(comfy_model)
        memory.unload_all_models()
        before = of(model), of(patched)
        for loaded in (patched, model):
            memory.load_models_gpu([loaded], force_full_load=True)
            assert (of(model), of(patched)) == before
            memory.unload_all_models()
        # With little memory LoRAs are applied in passing.
        patched.partially_load(patched.load_device, 0)
        patched.unpatch_model()
        patched.patch_model(patched.load_device, lowvram_model_memory=1)
        assert of(patched) == before[1]
        patched.unpatch_model()
        assert of(patched) == before[1] != before[0]

    def test_loras_by_content_and_strength(self, comfy_model, of):
        names = [of(with_lora(comfy_model, *how)) for how in ((1.0, 0), (0.5, 0), (1.0, 1))]
        assert len({of(comfy_model.model), *names}) == 4
        assert of(with_lora(comfy_model)) == names[0]

    def test_weights(self, pack, weights, comfy_model, of):
        again = pack("nodes.demo_model").load(weights)[0]
        assert of(again) == of(comfy_model.model) == of(comfy_model.model.clone())
        parameter = next(p for n, p in again.model.diffusion_model.named_parameters() if n.endswith("out.2.weight"))
        parameter.data *= 1.01
        assert of(again) != of(comfy_model.model)

    def test_patches_of_other_nodes(self, comfy_model, of):
        patched = comfy_model.model.clone()
        patched.set_model_attn2_replace(lambda q, k, v, options: q, "middle", 0)
        assert of(patched) != of(comfy_model.model)
        wrapped = comfy_model.model.clone()
        wrapped.add_wrapper_with_key("apply_model", "cache", lambda executor, *args: executor(*args))
        assert len({of(patched), of(wrapped), of(comfy_model.model)}) == 3

    def test_kind_of_prediction_and_schedule(self, comfy_model, of):
        from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG

        names = [
            of(ModelSamplingDiscrete().patch(comfy_model.model, kind, False)[0]) for kind in ("eps", "v_prediction")
        ]
        shifted = of(ModelSamplingDiscrete().patch(comfy_model.model, "eps", True)[0])
        assert len({*names, shifted}) == 3
        # What acts on cfg has no say here.
        assert of(RescaleCFG().patch(comfy_model.model, 0.7)[0]) == of(comfy_model.model)

    def test_quantised_and_foreign_tensors(self, pack):
        from comfy.quant_ops import QuantizedTensor

        class Packed(torch.Tensor):
            """As GGUF loaders do it: bytes in memory, another shape outside."""

            shape = property(lambda self: torch.Size((4, 64)))

        told = pack("nodes.abduct")._told
        plain = torch.arange(256.0).reshape(4, 64)
        packed = torch.arange(64, dtype=torch.uint8).reshape(4, 16).as_subclass(Packed)
        quantised = QuantizedTensor.from_float(plain, "TensorCoreFP8E4M3Layout")
        meta = torch.empty(4, 64, device="meta")
        empty, one = torch.empty(0, 3), torch.tensor(2.0)
        found = [b"".join(told(thing)) for thing in (plain, packed, quantised, meta, empty, one, plain.half())]
        assert len(set(found)) == len(found)
        assert b"".join(told(torch.nn.Parameter(plain))) == found[0]
        # ComfyUI loads what is on the meta device as zeros.
        assert found[3] == b"".join(told(torch.zeros(4, 64)))
