"""Metrics."""

from datasets.evaluation.referring import Evaluator, format_table

__all__ = ["Evaluator", "format_table"]
