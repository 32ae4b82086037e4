"""tools/browse_refhuman.py: the page's data, links, what is refused; the page in a browser."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import browse_refhuman
import numpy as np
import pytest
import torch
from browse.predictions import read_best
from browser import CHROMIUM, Browser
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from datasets.annotations import encode_segmentation
from datasets.evaluation import ReferringEvaluator
from datasets.skeleton import COCO, get_skeleton
from util import visualize
from util.errors import UserError

HOSTILE = [
    "<script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title = 'broken'\">",
    "'\"`${1}\\ \u2028 </script><!--",
    "\u202eright to left\u0000 \U0001f9cd\u200d\u2642 naïve 赤いシャツ",
    "a man in a red shirt",
    "a woman in red shirts",
    None,
]


def hostile(content, split):
    for image, caption in zip(content["images"], HOSTILE, strict=True):
        image["caption"] = caption


def make(folder, output, predictions=None, **options):
    return browse_refhuman.make_page(
        folder / "RefHuman_val.json", folder / "images", output, predictions, **options
    )


def piece(output, kind, number=0):
    """What a piece hands to the page."""
    text = (output / "browse_files" / f"{kind}_{number:05d}.js").read_text(encoding="ascii")
    head, _, rest = text.partition(", ")
    place, _, values = rest.partition(", ")
    assert head == f'receive("{kind}"' and int(place) == number and values.endswith(");\n")
    return json.loads(values.removesuffix(");\n"))


def content_of(folder):
    return json.loads((folder / "RefHuman_val.json").read_text())


def write_results(path, folder, change=None):
    """Results near to somebody of each image, two for every pair, the better one second."""
    generator = np.random.default_rng(0)
    results = []
    content = content_of(folder)
    for image in content["images"]:
        of_image = [
            annotation
            for other, annotation in zip(content["images"], content["annotations"], strict=True)
            if other["file_name"] == image["file_name"]
        ]
        size = image["height"], image["width"]
        for score in generator.random(2) / (2, 1) + (0, 0.5):
            shown = of_image[generator.integers(len(of_image))]
            keypoints = np.reshape(shown["keypoints"], (-1, 3)) + generator.normal(0, 3, (17, 3))
            keypoints[:, 2] = generator.random(17)
            code = encode_segmentation(shown["segmentation"], *size, "it")
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": 1,
                    "score": float(np.float32(score)),
                    "bbox": shown["bbox"],
                    "keypoints": keypoints.astype(np.float32).ravel().tolist(),
                    "segmentation": {**code, "counts": code["counts"].decode()},
                }
            )
    if change is not None:
        results = change(results) or results
    path.write_text(json.dumps(results))
    return results


# --- data ----------------------------------------------------------------------------------------


def test_what_is_drawn_is_what_the_file_says(refhuman_folder, tmp_path):
    def change(content, split):
        height, width = 96, 128
        annotation = content["annotations"][1]
        code = encode_segmentation(annotation["segmentation"], height, width, "it")
        annotation["segmentation"] = {**code, "counts": code["counts"].decode()}
        content["annotations"][2]["segmentation"] = {"size": [96, 128], "counts": [0, 96, 96 * 127]}
        content["annotations"][2]["keypoints"][2::3] = [0, 1, 2] + 14 * [0]
        del content["annotations"][3]["scribble"]

    folder = refhuman_folder(change=change)
    index = make(folder, tmp_path / "page")
    content, people = content_of(folder), piece(tmp_path / "page", "people")
    columns = index["pairs"]
    assert columns["caption"] == [image["caption"] for image in content["images"]]
    assert columns["id"] == [1, 2, 3, 4, 5]
    assert columns["people"] == [2, 2, 2, 2, 1]
    assert columns["labelled"] == [17, 17, 2, 17, 17]
    assert columns["area"] == [
        round(100 * annotation["area"] / (96 * 128), 2) for annotation in content["annotations"]
    ]
    assert "verdict" not in columns and index["predictions"] is None
    for number, annotation in zip(columns["person"], content["annotations"], strict=True):
        person = people[number]
        keypoints = np.reshape(annotation["keypoints"], (-1, 3))
        assert np.allclose(np.reshape(person["keypoints"], (-1, 2)), 10 * keypoints[:, :2])
        assert person["visibility"] == "".join(map(str, keypoints[:, 2].astype(int)))
        assert np.allclose(person["box"], 10 * np.array(annotation["bbox"]), atol=0.51)
        scribbles = np.reshape(annotation.get("scribble", []), (-1, 24))
        assert np.allclose(np.reshape(person.get("scribbles", []), (-1, 24)), 10 * scribbles)
        if isinstance(annotation["segmentation"], list):
            for drawn, polygon in zip(person["mask"], annotation["segmentation"], strict=True):
                assert np.allclose(drawn, 10 * np.array(polygon), atol=0.51)
        else:
            code = encode_segmentation(annotation["segmentation"], 96, 128, "it")
            assert person["mask"] == code["counts"].decode()


def test_somebody_with_many_captions_is_written_once_and_pieces_are_small(
    refhuman_folder, tmp_path
):
    def repeat(content, split):
        for i in range(4):
            image, annotation = content["images"][i], content["annotations"][i]
            content["images"].append({**image, "id": 300 + i, "caption": "again"})
            content["annotations"].append({**annotation, "id": 300 + i, "image_id": 300 + i})

    folder = refhuman_folder(pairs={"val": 230}, change=repeat)
    index = make(folder, tmp_path)
    assert index["pairs"]["person"] == [*range(230), 0, 1, 2, 3]
    assert index["pairs"]["image"][-4:] == [0, 0, 1, 1] and len(index["images"]["link"]) == 115
    sizes = [len(piece(tmp_path, "people", number)) for number in range(3)]
    assert sizes == [100, 100, 30] and index["piece"] == 100


def test_pairs_are_judged_as_the_evaluation_judges_them(refhuman_folder, tmp_path):
    def change(content, split):
        content["annotations"][5]["keypoints"][2::3] = 17 * [0]

    folder = refhuman_folder(pairs={"val": 21}, change=change)
    results = write_results(tmp_path / "results.json", folder)
    index = make(folder, tmp_path / "page", tmp_path / "results.json")
    content = content_of(folder)
    evaluator = ReferringEvaluator(content)
    for image in content["images"]:
        of_image = [result for result in results if result["image_id"] == image["id"]]
        keypoints = torch.tensor([result["keypoints"] for result in of_image])
        masks = [coco_mask.decode(result["segmentation"]) for result in of_image]
        evaluator.update(
            [image["id"]],
            [
                {
                    "scores": torch.tensor([result["score"] for result in of_image]),
                    "keypoints": keypoints.reshape(-1, 17, 3),
                    "masks": torch.from_numpy(np.stack(masks)).bool(),
                }
            ],
        )
    summary = evaluator.summarize()
    pairs = index["pairs"]
    verdicts = [index["verdicts"][verdict] for verdict in pairs["verdict"]]
    assert {"right", "wrong"} < set(verdicts)
    assert verdicts[5] == "unlabelled" and verdicts[4] == verdicts[20] == "alone"
    assert sum(pairs["judged"]) == summary["identity_count"]
    share = verdicts.count("right") / sum(pairs["judged"])
    assert share == pytest.approx(summary["identity_accuracy"], abs=1e-9)
    assert pairs["oks"][5] is None
    similar = [oks >= 0.5 for oks in pairs["oks"] if oks is not None]
    assert np.mean(similar) == pytest.approx(summary["found"], abs=1e-9)
    assert np.mean(pairs["iou"]) == pytest.approx(summary["miou"], abs=1e-4)
    best = [max(r["score"] for r in results[i : i + 2]) for i in range(0, 42, 2)]
    assert pairs["score"] == [round(score, 4) for score in best]
    drawn = piece(tmp_path / "page", "results")
    shown = next(result for result in results if result["score"] == best[0])
    assert drawn[0]["mask"] == shown["segmentation"]["counts"]
    keypoints = np.reshape(shown["keypoints"], (-1, 3))
    assert np.allclose(np.reshape(drawn[0]["keypoints"], (-1, 2)), 10 * keypoints[:, :2], atol=0.51)
    assert np.allclose(drawn[0]["confidence"], 100 * keypoints[:, 2], atol=0.51)


def test_pairs_without_a_result_count_as_wrong(refhuman_folder, tmp_path, capsys, monkeypatch):
    folder = refhuman_folder()
    path = tmp_path / "results.json"

    def change(results):
        del results[1]["segmentation"], results[1]["bbox"]
        results.append({**results[0], "image_id": 99, "category_id": 2})  # of something else
        return [r for r in results if r["image_id"] != 3]

    write_results(path, folder, change)
    index = make(folder, tmp_path / "page", path)
    pairs = index["pairs"]
    assert index["verdicts"][pairs["verdict"][2]] == "nothing" and pairs["judged"][2] == 1
    assert [pairs[key][2] for key in ("score", "oks", "iou")] == [None, None, None]
    drawn = piece(tmp_path / "page", "results")
    assert drawn[2] is None and set(drawn[0]) == {"keypoints", "confidence"}
    assert pairs["iou"][0] is None
    arguments = [str(folder / "RefHuman_val.json"), "--images", str(folder / "images")]
    arguments += ["--output", str(tmp_path / "other"), "--predictions", str(path)]
    monkeypatch.setattr(sys, "argv", ["browse_refhuman.py", *arguments])
    assert browse_refhuman.main() == 0
    out = capsys.readouterr().out
    assert "5 pairs of 5 people in 3 images" in out and "nothing: 1, alone: 1" in out
    assert f"Open {tmp_path / 'other' / 'index.html'} in a browser" in out


def test_colours_and_limbs_are_those_of_the_project(refhuman_folder, tmp_path):
    index = make(refhuman_folder(), tmp_path)
    assert index["skeleton"]["limbs"] == COCO.limbs
    sides = dict(zip(index["skeleton"]["names"], index["skeleton"]["sides"], strict=True))
    assert (sides["nose"], sides["left_eye"], sides["right_hip"]) == ("center", "left", "right")
    assert index["colors"]["left"] == "rgb({}, {}, {})".format(*visualize.LEFT_COLOR)


def test_another_skeleton(refhuman_folder, tmp_path, monkeypatch, capsys):
    def change(content, split):
        for annotation in content["annotations"]:
            annotation["keypoints"] = annotation["keypoints"][: 3 * 14]

    folder = refhuman_folder(change=change)
    with pytest.raises(UserError, match="skeleton=crowdpose"):
        make(folder, tmp_path)
    arguments = [str(folder / "RefHuman_val.json"), "--images", str(folder / "images")]
    arguments += ["--output", str(tmp_path), "--skeleton", "crowdpose"]
    monkeypatch.setattr(sys, "argv", ["browse_refhuman.py", *arguments])
    assert browse_refhuman.main() == 0
    index = make(folder, tmp_path, skeleton=get_skeleton("crowdpose"))
    assert index["skeleton"]["names"][12] == "head"


def test_captions_are_data_and_nothing_else(refhuman_folder, tmp_path):
    """They are in no HTML, and scripts are pure ASCII in which a caption cannot end its string."""
    folder = refhuman_folder(pairs={"val": 7}, change=hostile)
    index = make(folder, tmp_path)
    source = Path(browse_refhuman.__file__).parent / "browse"
    assert (tmp_path / "index.html").read_bytes() == (source / "page.html").read_bytes()
    text = (tmp_path / "browse_files" / "index.js").read_text(encoding="ascii")
    assert text.startswith("const INDEX = {") and text.endswith("};\n") and text.count("\n") == 1
    written = json.loads(text[len("const INDEX = ") : -2])
    assert written["pairs"]["caption"] == HOSTILE == index["pairs"]["caption"]
    for script in source.glob("*.js"):
        assert not re.search(
            "innerHTML|outerHTML|insertAdjacent|document.write|eval", script.read_text()
        )
    for path in source.glob("*.[jhc]*s*"):
        urls = set(re.findall(r"https?:[^\"]*", path.read_text()))
        assert urls <= {"http://www.w3.org/2000/svg"}  # a name, not an address


# --- images --------------------------------------------------------------------------------------


def test_images_that_are_missing_broken_or_turned(refhuman_folder, tmp_path):
    folder = refhuman_folder(pairs={"val": 13})
    names = [folder / "images" / f"val_{number:03d}.jpg" for number in range(7)]
    names[1].unlink()
    names[2].write_bytes(b"no image")
    Image.new("RGB", (50, 60)).save(names[3])
    for path, size, turn in ((names[4], (128, 96), 6), (names[5], (96, 128), 6)):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.new("RGB", size).save(path, exif=exif)
    Image.new("CMYK", (128, 96)).save(names[6])
    index = make(folder, tmp_path / "page")
    states = [index["states"][state] for state in index["images"]["state"]]
    assert states == ["fine", "missing", "unreadable", "wrong size", "fine", "fine", "fine"]
    # The browser turns both; annotations of the first are in its stored pixels.
    assert index["images"]["turn"] == [1, 1, 1, 1, 6, 1, 1]
    make(folder, tmp_path / "copied", copy=True)
    assert not (tmp_path / "copied" / "browse_files" / "images" / "val_001.jpg").exists()


@pytest.mark.parametrize("copy", [False, True])
def test_links_lead_to_the_images(refhuman_folder, tmp_path, copy):
    name = "below/50% #1? 'ü\u00e9 \u8d64.jpg"

    def rename(content, split):
        for image in content["images"]:
            image["file_name"] = f"{name}{image['file_name']}"

    folder = refhuman_folder(change=rename)
    images = folder / "images & more"
    (folder / "images").rename(images)
    (images / "below").mkdir()
    for path in images.glob("val*"):
        target = images / f"{name}{path.name}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    output = tmp_path / "deep" / "page"
    index = browse_refhuman.make_page(folder / "RefHuman_val.json", images, output, copy=copy)
    links = [index["images"]["prefix"] + link for link in index["images"]["link"]]
    for link, original in zip(links, index["images"]["name"], strict=True):
        assert not set("#? '&") & set(link) and not link.startswith("/")
        assert (output / unquote(link)).read_bytes() == (images / original).read_bytes()
        inside = (output / unquote(link)).resolve().is_relative_to(output.resolve())
        assert inside == copy


# --- files ---------------------------------------------------------------------------------------


def test_an_earlier_page_is_replaced_whole(refhuman_folder, tmp_path, monkeypatch):
    output = tmp_path / "page"
    make(refhuman_folder(pairs={"val": 230}), output, copy=True)
    folder = refhuman_folder()
    make(folder, output)
    left = {path.name for path in (output / "browse_files").iterdir()}
    assert "people_00000.js" in left and not {"people_00001.js", "images"} & left
    real = browse_refhuman._write_pieces

    def stop(folder, kind, values):
        real(folder, kind, values)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(browse_refhuman, "_write_pieces", stop)
    with pytest.raises(OSError, match="No space"):
        make(refhuman_folder(pairs={"val": 2}), output)
    monkeypatch.undo()
    assert {path.name for path in (output / "browse_files").iterdir()} == left
    assert "const INDEX" in (output / "browse_files" / "index.js").read_text()
    assert {path.name for path in output.iterdir()} == {"index.html", "browse_files"}


def test_what_is_not_a_page_is_not_replaced(refhuman_folder, tmp_path):
    folder = refhuman_folder()
    (tmp_path / "index.html").write_text("of somebody")
    with pytest.raises(UserError, match=r"its index.html is of something else"):
        make(folder, tmp_path)
    output = tmp_path / "page"
    make(folder, output, copy=True)
    images = output / "browse_files" / "images"
    with pytest.raises(UserError, match="would overwrite the input"):
        browse_refhuman.make_page(folder / "RefHuman_val.json", images, output)
    assert images.is_dir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r[0].update(image_id=77), r"result 0 is of image id 77, which the ground truth"),
        (lambda r: r[0].update(image_id="1"), r"result 0 is of image id '1'"),
        (lambda r: r[3].pop("score"), r"result 3 has to be an object with 'image_id', 'score'"),
        (lambda r: [*r, 5], r"result 10 has to be an object .* got 5"),
        (lambda r: r[1].update(score=None), r"result 1: 'score' has to be a number, got None"),
        (lambda r: r[1].update(score=float("nan")), r"'score' has to be a number, got nan"),
        (lambda r: r[1].update(keypoints=[1.0]), r"result 1 \(image id 1\): 'keypoints' .* 51 fin"),
        (lambda r: r[1]["keypoints"].__setitem__(3, None), r"'keypoints' has to hold 51 finite"),
        (lambda r: r[1].update(bbox=[1]), r"'bbox' has to be \[x, y, width, height\], got \[1\]"),
        (lambda r: r[1].update(segmentation=[[1]]), r"'segmentation' has to be an RLE"),
        (lambda r: r[1]["segmentation"].update(size=[9, 9]), r"its 'size' has to be \[96, 128\]"),
        (lambda r: r[1]["segmentation"].update(counts="~"), r"result 1 .* RLE .* is broken"),
        (lambda r: r.clear(), r"holds no results"),
    ],
)
def test_broken_results_are_refused(refhuman_folder, tmp_path, change, words):
    folder = refhuman_folder()

    def keep_list(results):
        changed = change(results)
        return changed if isinstance(changed, list) else None

    path = tmp_path / "results.json"
    write_results(path, folder, keep_list)
    with pytest.raises(UserError, match=words):
        make(folder, tmp_path / "page", path)
    assert not (tmp_path / "page" / "index.html").exists()


def test_of_equal_scores_the_first_result_counts(refhuman_folder, tmp_path):
    def level(results):
        for result in results:
            result["score"] = 0.5

    results = write_results(tmp_path / "r.json", refhuman_folder(), level)
    best = read_best(tmp_path / "r.json", dict.fromkeys(range(1, 6), (96, 128)), COCO)
    assert [best[i] for i in range(1, 6)] == results[::2]


# --- in a browser --------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian's package chromium) to open the page"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def captions_seen(browser):
    return browser.ask("[...document.querySelectorAll('.card .caption')].map((c) => c.textContent)")


def type_words(browser, words):
    browser.ask(f"find('words').value = {json.dumps(words)}, update()")
    return captions_seen(browser)


@needs_browser
def test_hostile_captions_are_text_and_words_are_found(refhuman_folder, tmp_path, browser):
    make(refhuman_folder(pairs={"val": 7}, change=hostile), tmp_path)
    browser.open(tmp_path / "index.html")
    browser.wait("document.querySelectorAll('.card svg').length === 7")
    shown = [caption or "(no caption)" for caption in HOSTILE]
    assert captions_seen(browser) == shown
    assert browser.ask("document.title") == "RefHuman_val.json – RefHuman"
    assert browser.ask("document.querySelectorAll('main script, main img[src=x]').length") == 0
    loaded = "[...document.images].every((i) => i.complete && i.naturalWidth === 128)"
    browser.wait(loaded)
    assert type_words(browser, "shirt") == HOSTILE[4:6]
    assert type_words(browser, "man") == HOSTILE[4:5]
    assert type_words(browser, "red -woman") == HOSTILE[4:5]
    assert type_words(browser, '"red shirt"') == HOSTILE[4:6]
    assert type_words(browser, "シャツ") == HOSTILE[3:4]
    assert type_words(browser, "\U0001f9cd") == HOSTILE[3:4]
    assert type_words(browser, "<script>") == HOSTILE[:2][:1] + HOSTILE[2:3]
    assert type_words(browser, "#7") == shown[6:]
    assert type_words(browser, '"zebra <b>') == []
    message = browser.ask("find('message').innerText")
    assert message.startswith('No pair fits all of this: words "zebra <b>. Change a filter')
    browser.ask("find('clear').click()")
    browser.wait("document.querySelectorAll('.card').length === 7")
    assert browser.ask("find('message').hidden")
    # In a view of its own, and in the address
    browser.open(tmp_path / "index.html", "#words=naïve&open=4")
    browser.wait("find('large').open")
    assert browser.ask("find('large_caption').textContent") == HOSTILE[3]
    assert browser.problems == []


@needs_browser
def test_keys_filters_and_sorting(refhuman_folder, tmp_path, browser):
    folder = refhuman_folder(pairs={"val": 230})
    write_results(tmp_path / "results.json", folder, lambda r: [x for x in r if x["image_id"] > 3])
    index = make(folder, tmp_path / "page", tmp_path / "results.json")
    pairs = index["pairs"]
    browser.open(tmp_path / "page" / "index.html")
    browser.wait("document.querySelectorAll('.card svg').length >= 8")
    assert browser.ask("document.querySelectorAll('.card').length") < 40  # those in sight
    right, judged = pairs["verdict"].count(0), sum(pairs["judged"])
    words = f"right person {right} of {judged} ({100 * right / judged:.1f} %)"
    assert words in browser.ask("find('count').textContent")

    browser.ask("find('verdict').value = 1, update()")
    wrong = browser.ask("fitting")
    assert wrong == [i for i, verdict in enumerate(pairs["verdict"]) if verdict == 1]
    browser.ask("find('sort').value = 'oks', find('direction').click()")
    assert browser.ask("fitting") == sorted(wrong, key=lambda i: (-pairs["oks"][i], i))
    browser.ask("find('clear').click()")
    browser.wait("fitting.length === 230")
    browser.ask("find('sort').value = 'score', update()")
    assert browser.ask("fitting").index(0) == 227  # without a score: last, and in order
    browser.ask("document.querySelector('[data-column=oks] .low').value = 0.5, update()")
    assert sorted(browser.ask("fitting")) == [
        i for i, oks in enumerate(pairs["oks"]) if oks is not None and oks >= 0.5
    ]
    browser.ask("find('filters').reset()")
    browser.wait("fitting.length === 230")

    browser.ask("document.activeElement.blur()")
    for key in ("ArrowRight", "j", "k", "Enter"):
        browser.press(key)
    browser.wait("find('large').open")
    assert browser.ask("find('place').textContent") == "2 of 230"
    browser.press("ArrowRight")
    assert browser.ask("find('place').textContent") == "3 of 230"
    browser.wait("document.querySelectorAll('#panels svg').length === 2")  # side by side
    browser.press("v")
    browser.wait("document.querySelectorAll('#panels svg').length === 1")
    for key, layer in (("s", "skeleton"), ("m", "mask"), ("x", "box"), ("b", "scribble")):
        seen = f"getComputedStyle(document.querySelector('#panels svg .{layer}')).display"
        before = browser.ask(seen)
        browser.press(key)
        assert {before, browser.ask(seen)} == {"none", "inline"}
    browser.press("Escape")
    browser.wait("!find('large').open")
    browser.press("End")
    browser.wait("current === 229 && document.activeElement.textContent.includes('right side')")
    scheme = "getComputedStyle(document.body).backgroundColor"
    before = browser.ask(scheme)
    browser.press("d")
    assert browser.ask(scheme) != before
    browser.press("?")
    assert browser.ask("find('help').open")
    assert browser.problems == []


@needs_browser
def test_masks_and_turned_images_lie_where_python_has_them(refhuman_folder, tmp_path, browser):
    make(refhuman_folder(), tmp_path)
    browser.open(tmp_path / "index.html")
    generator = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = np.asfortranarray(generator.random((37, 53)) < share, dtype=np.uint8)
        counts = coco_mask.encode(mask)["counts"].decode()
        columns = browser.ask(f"[...columnsOf(decodeRuns({json.dumps(counts)}), 37)]")
        drawn = np.zeros_like(mask)
        for x, rows in columns:
            for start, end in zip(rows[::2], rows[1::2], strict=True):
                drawn[start:end, x] += 1
        assert np.array_equal(drawn, mask)
        edges = browser.ask(f"pathsOfCode({json.dumps(counts)}, 37).edges[0]")
        framed = np.pad(mask.astype(int), 1)
        upright = sum(int(b) - int(a) for a, b in re.findall(r"M\d+ (\d+)V(\d+)", edges))
        assert upright == np.abs(np.diff(framed, axis=1)).sum()
        assert edges.count("h1") == np.abs(np.diff(framed, axis=0)).sum()
    stored = np.zeros((2, 3), dtype=np.uint8)
    stored[0, 2] = 255  # x from 2 to 3, y from 0 to 1: its middle is (2.5, 0.5)
    for turn in range(2, 9):
        image = Image.fromarray(stored)
        image.getexif()[0x0112] = turn
        ((y, x),) = np.argwhere(np.asarray(ImageOps.exif_transpose(image)))
        a, b, c, d, e, f = browser.ask(f"turnMatrix({turn}, 3, 2)")
        assert (2.5 * a + 0.5 * c + e, 2.5 * b + 0.5 * d + f) == (x + 0.5, y + 0.5), turn


@needs_browser
def test_a_page_without_its_data_says_so(refhuman_folder, tmp_path, browser):
    make(refhuman_folder(), tmp_path)
    (tmp_path / "browse_files" / "index.js").unlink()
    browser.open(tmp_path / "index.html")
    assert "The data of this page did not load" in browser.ask("document.body.innerText")
    browser.problems.clear()
