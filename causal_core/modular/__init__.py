"""Modular causal models: one sampler for each variable, fitted part by part, that answers any identifiable question.

Rahman and Kocaoglu (2024), *Modular Learning of Deep Causal Generative Models for High-dimensional Causal Inference*
(Modular-DCM), and Rahman, Jordan and Kocaoglu (2024), *Conditional Generative Models are Sufficient to Sample from Any
Causal Effect Estimand* (ID-GEN).
"""
