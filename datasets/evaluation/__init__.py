"""Metrics, exact under several processes.

- `referring.py`: one person per image entry, whom a prompt means (RefHuman, synthetic images);
- `people.py`: everybody in an image (COCO, CrowdPose);
- `prompted_people.py`: everybody in an image, each prompted for (COCO);
- `selection.py`: which results of a multi-person model count for one person;
- `evaluator.py`: what all evaluators share, the way of a batch from results to verdicts;
- `truth.py`: the ground truth; `found.py`: the results of a batch; `packed.py`: what stays of them;
- `similarity.py`, `matching.py`, `average_precision.py`: COCO's protocol, pycocotools' figures;
- `predictions.py`: results kept for a file;
- `table.py`: how the figures are printed.
"""

from datasets.evaluation.evaluator import Evaluator
from datasets.evaluation.people import PeopleEvaluator
from datasets.evaluation.prompted_people import PromptedPeopleEvaluator
from datasets.evaluation.referring import ReferringEvaluator
from datasets.evaluation.selection import Selection, parse_selections
from datasets.evaluation.table import format_table

__all__ = [
    "Evaluator",
    "PeopleEvaluator",
    "PromptedPeopleEvaluator",
    "ReferringEvaluator",
    "Selection",
    "format_table",
    "parse_selections",
]
