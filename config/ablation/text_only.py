"""UniPHD trained with text prompts alone (Table 4), as models for referring segmentation are."""

_base_ = "../uniphd.py"

prompt_probabilities = dict(text=1.0, scribble=0.0, point=0.0)
eval_prompts = ["text"]
