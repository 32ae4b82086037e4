"""From annotations of people to RefHuman files; `tools/build_refhuman.py` is its command line.

- `selection.py`: who is taken, after Table 1 of the paper;
- `texts.py`: what people are called: RefCOCO's files, CSV, JSON;
- `sources.py`, `own_data.py`: reading COCO keypoints (of any size) and CSV;
- `people.py`: one person -> checked annotation with scribbles;
- `build.py`: the way through all of these, in parts, by several processes.
"""
