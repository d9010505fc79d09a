"""Causal Semantic Guidance: invert a picture, find where each concept lives, sample the counterfactual.

A reconstruction in the spirit of FM-CGM (Komanduri and Wu 2026), whose formulas are not public: edit-friendly inversion
as abduction, telescoping one-factor directions as action, masked sampling on the same noise as prediction.
"""
