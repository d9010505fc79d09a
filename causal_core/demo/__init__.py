"""The bundled text-to-image model: small enough to train on one CPU core, standard enough to run in ComfyUI.

>>> from causal_core.demo.model import DemoModel, generate
>>> model = DemoModel.load("causal_core/demo/weights/micro.safetensors")
>>> images = generate(model, ["in winter, at night, red house"], seed=0)   # uint8 [1, 64, 64, 3]
"""
