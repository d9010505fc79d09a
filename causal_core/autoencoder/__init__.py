"""CausalDiffAE: encode a picture into causally related latents, intervene on any of them, decode, train."""
