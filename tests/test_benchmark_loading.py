"""What the benchmark of loading makes and measures, on a small file."""

from __future__ import annotations

import json

import pytest
from benchmarks import loading

SMALL = {**loading.DEFAULTS, "images": 3, "people": 7, "expressions": 20}


@pytest.mark.parametrize("variant", loading.VARIANTS)
def test_a_round(variant, capfd):
    measure = loading.prepare({**SMALL, **loading.VARIANTS[variant]})
    assert [measure(), measure()] == [1, 1]
    assert ("a loader's worker adds" in capfd.readouterr().err) == (variant == "worker")


def test_the_file(tmp_path):
    orders = []
    for form in ("loading", "shuffled"):
        (tmp_path / form).mkdir()
        loading.write_file(tmp_path / form, {**SMALL, "form": form})
        content = json.loads((tmp_path / form / "people.json").read_text())
        assert len(content["images"]) == len(content["annotations"]) == 20
        boxes = [tuple(annotation["bbox"]) for annotation in content["annotations"]]
        assert len(set(boxes)) == 7 and len(list((tmp_path / form / "images").iterdir())) == 3
        orders.append(sum(a == b for a, b in zip(boxes, boxes[1:], strict=False)))
    assert orders[0] == 13 > orders[1]
