"""The second training of the tiny model that comes with the repository: crowds of many shapes.

It goes on from the first one (`config/uniphd_tiny.py`), on up to six people at full difficulty, in
images of 128 to 192 pixels a side, each drawn anew; every fifth epoch shows the easy images of the
first, so that they are not forgotten.  Four prompts of an image stand in a batch: of six people
one says little about the others.

With a constant learning rate progress is slow and not over after 5,000 steps; its drop brings more
in 300 steps than 2,000 before it did (keypoint AP of scribbles on 200 images: 59.5 before, 72.0
after).  What epochs of easy images cost shows in the curves: after one, the harder images are up to
6 points worse until the next epoch.  To mix both in every batch would be better.

The kept file was made in pieces, with these settings at the end and others on the way: for 43 of
the 52 epochs at the full rate images had 160 to 192 pixels a side, none were easy, and the class
loss weighed 40 (30 for 7 more); epochs 62 to 65 had the lowest rate, later ones a higher one again.
"""

_base_ = "uniphd_tiny.py"

synthetic = dict(
    image_size=[[128, 192], [128, 192]],
    num_people=[1, 6],
    difficulty=1.0,
    curriculum=[
        stage
        for first in range(0, 80, 5)
        for stage in (
            dict(until_epoch=first + 4),
            dict(until_epoch=first + 5, image_size=[128, 128], num_people=[1, 3], difficulty=0.3),
        )
    ],
)
eval_max_side = 192
prompts_per_image = 4
prompt_probabilities = dict(text=0.7, scribble=0.15, point=0.15)

epochs = 81
lr_drop_epochs = [52, 78]
