"""What every method of ``counterfact bench autoencoder`` is: encode, intervene, decode; trained alike, saved alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ....autoencoder.coding import Coding
from ....autoencoder.config import AutoencoderConfig
from ....autoencoder.data import Source
from ....autoencoder.model import CausalLatent
from ....autoencoder.objective import Batch
from ....errors import CounterfactError
from ....weights import read_tensors, write_tensors
from ...autoencoder_training import fit
from ...disentanglement import Code

KIND, SCHEMA_VERSION = "counterfact.bench-method", 1

Do = Mapping[int, torch.Tensor]


class Method(nn.Module, ABC):
    """A generative model of pictures and their variables that can be asked what if.

    Parameters
    ----------
    config : sizes, those of ours, and how to train
    coding : variables and their places
    """

    name: ClassVar[str]

    def __init__(self, config: AutoencoderConfig, coding: Coding) -> None:
        super().__init__()
        self.config, self.coding = config, coding
        self.provenance: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @abstractmethod
    def losses(self, batch: Batch, rng: torch.Generator, progress: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Loss terms of a batch, scalars, "loss" in all; ``progress`` goes from 0 to 1 over the training."""

    @abstractmethod
    def encode(self, images: torch.Tensor, labels: torch.Tensor, steps: int, rng: torch.Generator) -> CausalLatent:
        """What the method keeps of pictures [B, C, H, W] in -1..1.

        Parameters
        ----------
        labels : [B, width], true values, which only methods without an encoder look at
        steps : of its sampler, if it has one
        rng : of whatever is random, on the CPU
        """

    @abstractmethod
    def intervened(self, latent: CausalLatent, do: Do) -> CausalLatent:
        """The same under an intervention: for each index of a variable its new places [B, width of the variable]."""

    @abstractmethod
    def decode(self, latent: CausalLatent) -> torch.Tensor:
        """Pictures [B, C, H, W] in -1..1 of what was encoded, or intervened on."""

    def code(self, images: torch.Tensor) -> Code | None:
        """Latents of pictures, those of a variable in one group; None for a method that has none."""
        return None

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, config, variables and provenance in the header."""
        document = {
            "kind": KIND, "schema_version": SCHEMA_VERSION, "method": self.name, "config": self.config.to_dict(),
            "variables": self.coding.to_dict(), "provenance": self.provenance,
        }  # fmt: skip
        write_tensors(path, self.state_dict(), document)

    @classmethod
    def load(cls, path: Path) -> Method:
        """Read a weights file of this method; raises CounterfactError if it is missing, damaged or of another one."""
        tensors, document = read_tensors(path, KIND, SCHEMA_VERSION)
        try:
            if document["method"] != cls.name:
                raise ValueError(f"it is {document['method']!r}")
            method = cls(AutoencoderConfig.from_dict(document["config"]), Coding.from_dict(document["variables"]))
            method.load_state_dict(tensors)
            method.provenance = document["provenance"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CounterfactError(
                f"{path} is no usable {cls.name} ({error}); delete it to have it made again"
            ) from None
        return method.eval().requires_grad_(False)

    @classmethod
    def trained(
        cls, config: AutoencoderConfig, source: Source, folder: Path, seed: int = 0, device: str = "cpu"
    ) -> Path:
        """Train on ``config.images`` pictures of a source, unless the run folder has it already: the weights file.

        Raises
        ------
        CounterfactError
            If the folder's run is of another config or other pictures.
        """
        path = folder / f"{cls.name}.safetensors"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            method = cls(config, source.coding).to(device)
        wanted = {k: v for k, v in method.config.to_dict().items() if k not in ("images", "name")}
        if path.exists():
            done = cls.load(path)
            same = {k: v for k, v in done.config.to_dict().items() if k in wanted} == wanted
            if not same or done.provenance.get("data") != source.key:
                raise CounterfactError(
                    f"{path} was trained with another config or on other pictures: choose another --run folder"
                )
            if done.provenance["images"] >= config.images:
                return path
        identity = {"method": cls.name, "config": wanted, "variables": source.coding.to_dict()}
        method, provenance = fit(
            method, source, config.images, folder / cls.name, identity, cls.name, seed,
            config.batch, learning_rate=config.learning_rate, warm_up=config.warm_up, ema=config.ema,
        )  # fmt: skip
        method.provenance = provenance
        method.save(path)
        return path


def noise(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Standard normal noise of the pictures' shape, drawn on the CPU."""
    return torch.randn(images.shape, generator=rng).to(images)


def nothing(images: torch.Tensor) -> torch.Tensor:
    """Of a method that keeps no such thing: [B, 0]."""
    return images.new_zeros(len(images), 0)
