"""UniPHD on all people of COCO, with a click or a scribble drawn for each (Tables 3 and 9).

    python main.py -c config/uniphd_coco.py --coco_path data/coco --output_dir outputs/coco \
        --swin_pretrain_path weights/swin_tiny_patch4_window7_224.pth

trains on train2017 and evaluates on val2017 by COCO's protocol, the results of all people of an
image together.  COCO has no captions: there are no text prompts.
"""

_base_ = "uniphd.py"

dataset = "coco_prompted"
coco_path = "data/coco"
prompt_probabilities = dict(text=0.0, scribble=0.5, point=0.5)
eval_prompts = ["point", "scribble"]
