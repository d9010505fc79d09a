"""Cross-attention: which tokens belong to a phrase, and where in the picture a model looks for them."""
