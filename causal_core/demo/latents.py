"""Latents of the bundled model: principal components of square image patches.

A fixed linear code instead of a learnt autoencoder: encoding is exact and instant, an edit of one latent position
changes exactly one patch, and the round trip loses only the components that are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Components weaker than this share of the strongest are not scaled up to unit variance: their noise would cost the
# diffusion model as much as what people see.
FLOOR = 0.1


class PatchPCA(torch.nn.Module):
    """An orthonormal patch transform with clamped whitening.

    Buffers: matrix [3 * patch**2, C] with orthonormal columns, mean [3 * patch**2], scale [C].
    """

    def __init__(self, patch: int, channels: int) -> None:
        super().__init__()
        size = 3 * patch * patch
        self.patch = patch
        self.register_buffer("matrix", torch.eye(size, channels))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(channels))

    @torch.no_grad()
    def fit(self, images: torch.Tensor, floor: float = FLOOR) -> PatchPCA:
        """Set the buffers from images [B, 3, H, W] in -1..1; returns self."""
        patches = F.pixel_unshuffle(images.double(), self.patch).movedim(1, -1).flatten(0, -2)
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        channels = self.scale.numel()
        matrix = vectors.flip(1)[:, :channels]
        # An eigenvector's sign is arbitrary: fix it, so that the same images give the same latents everywhere.
        matrix = matrix * matrix.gather(0, matrix.abs().argmax(0, keepdim=True)).sign()
        deviations = variances.flip(0)[:channels].clamp_min(1e-12).sqrt()
        self.matrix.copy_(matrix)
        self.mean.copy_(mean)
        self.scale.copy_(deviations.clamp_min(floor * deviations[0]))
        return self

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W] in -1..1 to latents [B, C, H / patch, W / patch] of about unit variance."""
        patches = F.pixel_unshuffle(images, self.patch).movedim(1, -1)
        return ((patches - self.mean) @ self.matrix / self.scale).movedim(-1, 1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`encode`, up to the components left out; not clamped to -1..1."""
        patches = (latents.movedim(1, -1) * self.scale) @ self.matrix.T + self.mean
        return F.pixel_shuffle(patches.movedim(-1, 1), self.patch)
