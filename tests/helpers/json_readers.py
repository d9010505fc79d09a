"""Readers of JSON that a language model gave: one that takes all, and one of a list of names."""

from __future__ import annotations

from causal_core.errors import CounterfactError


def everything(data):
    """Whatever there is."""
    return data


def edges(data):
    """A reader as they are: a list of objects with a name each."""
    if not isinstance(data, list) or not all(isinstance(item, dict) and "name" in item for item in data):
        raise CounterfactError('write a list [{"name": "..."}]')
    return [item["name"] for item in data]
