"""Benchmarks: every table of the README comes from here, with any seed."""
