"""The demo model through ComfyUI computes what it computes through diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

CAPTION = "in winter, at night, bare tree, red house"


def encoded(comfy_model, text):
    return comfy_model.clip.encode_from_tokens_scheduled(comfy_model.clip.tokenize(text))


def test_noise_levels_are_the_same(pack, comfy_model):
    ours = pack("causal_core.demo.schedule").sigmas()
    theirs = comfy_model.model.get_model_object("model_sampling").sigmas
    assert torch.allclose(theirs, ours, rtol=1e-6, atol=0)


def test_text_is_the_same(comfy_model, reference):
    assert torch.allclose(encoded(comfy_model, CAPTION)[0][0], reference.context([CAPTION]), atol=1e-5)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 30.0, 9000.0])
def test_denoised_is_the_same(pack, comfy_model, reference, sigma):
    import comfy.samplers

    schedule = pack("causal_core.demo.schedule")
    x = torch.randn(2, 24, 16, 16, generator=torch.Generator().manual_seed(0)) * (1 + sigma**2) ** 0.5
    levels = torch.full((2,), sigma)
    expected = schedule.denoised(reference.unet, x, levels, reference.context([CAPTION]).expand(2, -1, -1))

    class Once(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, *_, **__):
            return model_wrap(x, levels, **extra_args)

    guider = comfy.samplers.CFGGuider(comfy_model.model)
    guider.set_conds(encoded(comfy_model, CAPTION), encoded(comfy_model, ""))
    found = guider.sample(torch.zeros_like(x), torch.zeros_like(x), Once(), torch.tensor([sigma, 0.0]))
    assert torch.allclose(found, expected, atol=1e-4)


def test_generated_picture_is_the_same(pack, comfy_model, reference):
    import comfy.sample
    import comfy.samplers

    steps, cfg, seed = 6, 2.0, 5
    expected = pack("causal_core.demo.model").sample(reference, [CAPTION], seed, steps, cfg)
    found = comfy.sample.sample_custom(
        comfy_model.model, torch.randn(1, 24, 16, 16, generator=torch.Generator().manual_seed(seed)), cfg,
        comfy.samplers.sampler_object("dpmpp_2m"), pack("causal_core.demo.schedule").sampling_sigmas(steps),
        encoded(comfy_model, CAPTION), encoded(comfy_model, ""), torch.zeros(1, 24, 16, 16), disable_pbar=True,
        seed=seed,
    )  # fmt: skip
    assert torch.allclose(found, expected, atol=1e-3)


def test_words_can_be_weighted(comfy_model):
    plain, heavy = (
        encoded(comfy_model, "red house, bare tree")[0][0],
        encoded(comfy_model, "(red:1.4) house, bare tree")[0][0],
    )
    changed = (plain - heavy).abs().amax(-1)[0] > 0
    assert changed.nonzero().flatten().tolist() == [1]


def test_long_captions_get_a_second_section(comfy_model):
    assert encoded(comfy_model, "red house " * 40)[0][0].shape[1] == 128


def test_vae_is_the_patch_transform(comfy_model, reference):
    image = torch.rand(2, 96, 128, 3, generator=torch.Generator().manual_seed(0))
    latent = comfy_model.vae.encode(image)
    assert latent.shape == (2, 24, 24, 32)
    assert torch.allclose(latent, reference.latents.encode(image.movedim(-1, 1) * 2 - 1), atol=1e-5)
    decoded = comfy_model.vae.decode(latent)
    assert decoded.shape == image.shape
    assert torch.allclose(decoded, comfy_model.vae.decode_tiled(latent, tile_x=16, tile_y=16, overlap=4), atol=1e-4)
    assert torch.allclose(latent, comfy_model.vae.encode_tiled(image, tile_x=64, tile_y=64, overlap=16), atol=1e-4)


def test_preview_shows_the_mean_colours(pack, comfy_model):
    from latent_preview import Latent2RGBPreviewer

    world = pack("causal_core.worlds").get_world("cottage")
    image = torch.from_numpy(world.render(world.sample(4), 64)).float()[None] / 255
    latent_format = comfy_model.model.get_model_object("latent_format")
    previewer = Latent2RGBPreviewer(latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias)
    preview = np.asarray(previewer.decode_latent_to_preview(comfy_model.vae.encode(image))) / 255
    small = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 4)[0].movedim(0, -1)
    assert np.abs(preview - small.numpy()).max() < 0.03


def test_comfyui_can_make_a_second_patcher(comfy_model):
    for patcher in (comfy_model.model, comfy_model.clip.patcher, comfy_model.vae.patcher):
        build, arguments = patcher.cached_patcher_init
        copy = build(*arguments, disable_dynamic=True)
        assert copy.model is not patcher.model
        assert {k: v.shape for k, v in copy.model.state_dict().items()} == {
            k: v.shape for k, v in patcher.model.state_dict().items()
        }


def damaged(weights, tmp_path, how):
    """A weights file with something wrong in it."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "damaged.safetensors"
    if how == "missing":
        return path
    if how in ("cut", "text"):
        content = weights.read_bytes()
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"no weights at all")
        return path
    with safe_open(weights, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    if how == "unet":
        tensors.pop("unet.conv_in.weight")
    elif how == "text":
        tensors.pop("text.norm.weight")
    elif how == "shape":
        tensors["text.norm.weight"] = torch.zeros(3)
    elif how == "latents":
        tensors.pop("latents.mean")
    elif how == "version":
        metadata = {k: v.replace('"schema_version": 1', '"schema_version": 2') for k, v in metadata.items()}
    elif how == "kind":
        metadata = None
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize("how", ["missing", "cut", "text", "unet", "text", "shape", "latents", "version", "kind"])
def test_bad_weights_are_refused_by_name(pack, weights, tmp_path, how):
    with pytest.raises(pack("causal_core.errors").CounterfactError, match="damaged.safetensors"):
        pack("nodes.demo_model").load(damaged(weights, tmp_path, how))
