"""Compiled libraries of UniPHD, loaded by models/uniphd/ops/extension.py."""
