"""UniPHD trained with clicks and scribbles alone, half of each, as for Tables 3 and 9.

This is such a training on RefHuman; that on all people of COCO is config/uniphd_coco.py.
"""

_base_ = "../uniphd.py"

prompt_probabilities = dict(text=0.0, scribble=0.5, point=0.5)
eval_prompts = ["point", "scribble"]
