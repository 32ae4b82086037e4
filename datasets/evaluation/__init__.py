"""Metrics, exact under several processes.

- `evaluator.py`: what all evaluators share, the results collected from all processes;
- `referring.py`: one person per image entry, whom a prompt means (RefHuman, synthetic images);
- `people.py`: everybody in an image (COCO, CrowdPose);
- `average_precision.py`: COCO's protocol for both;
- `table.py`: how the figures are printed.
"""

from datasets.evaluation.evaluator import Evaluator
from datasets.evaluation.people import PeopleEvaluator
from datasets.evaluation.referring import ReferringEvaluator
from datasets.evaluation.table import format_table

__all__ = ["Evaluator", "PeopleEvaluator", "ReferringEvaluator", "format_table"]
