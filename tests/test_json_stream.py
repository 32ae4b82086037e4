"""JSON read entry by entry is what `json.loads` reads; broken files are refused."""

from __future__ import annotations

import functools
import gc
import json
import random
import tracemalloc

import pytest

from datasets import json_stream
from datasets.json_stream import read_lists, read_object
from util.errors import MissingFileError, UserError

read_list = functools.partial(json_stream.read_list, name="results", remedy="write it again")


def test_an_object_is_read_whole(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"info": {"a": [1]}, "none": null, "empty": [ ], "list": [4, [5]], "": "x"} ')
    assert list(read_object(file)) == [
        ("info", None, {"a": [1]}),
        ("none", None, None),
        ("empty", None, []),
        ("list", None, []),
        ("list", 0, 4),
        ("list", 1, [5]),
        ("", None, "x"),
    ]


def test_lists_are_read_as_json_reads_them(tmp_path, monkeypatch):
    """Whatever the pieces that the file comes in."""
    content = {
        "info": {"a": [1, {"b": "]}"}]},
        "images": [{"id": i, "name": f'"ü,{i}\\'} for i in range(5)],
        "empty": [],
        "numbers": [1, 23.5, -4e3, 4e-30, 5, True, None, "x"],
        "annotations": [[i] * i for i in range(6)],
        "last": 3,
    }
    file = tmp_path / "a.json"
    for indent in (None, 2):
        file.write_text(json.dumps(content, indent=indent), encoding="utf-8-sig")
        for chunk in (1, 2, 7, 10**6):
            monkeypatch.setattr(json_stream, "_CHUNK", chunk)
            names = ("images", "empty", "numbers", "annotations")
            found = {name: [] for name in names}
            for name, entry in read_lists(file, names):
                found[name].append(entry)
            assert found == {name: content[name] for name in names}
    assert list(read_lists(file, ())) == []


def test_a_caller_may_change_what_it_gets(tmp_path):
    """The next repetition is as the file has it."""
    file = tmp_path / "a.json"
    content = [{"id": i, "image_id": i, "keypoints": [1, 2]} for i in range(3)]
    file.write_text(json.dumps({"annotations": content}))
    for (_, entry), expected in zip(read_lists(file, ("annotations",)), content, strict=True):
        assert entry == expected
        entry["keypoints"] = entry["keypoints"][::-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected an object"),
        ("[1]", "expected an object"),
        ('{"a": [1', "not valid JSON"),
        ('{"a": [1 2]}', "expected ',' or ']'"),
        ('{"a": [1],}', "not valid JSON"),
        ('{"a": [1]} x', "expected nothing behind"),
        ('{"a": [1], "b": 2, "a": [3]}', "the key 'a' occurs twice"),
        ("{} x", "expected nothing behind"),
        ('{"a": 3}', "'a' has to be a list"),
        ("{3: []}", "expected a key"),
        ('{"a": [nul]}', "not valid JSON"),
        ('{"a": [' + "[" * 10**5, "nested too deeply"),
        ('{"a": ["\udcff"]}', "not text in UTF-8"),
    ],
)
def test_broken_json(tmp_path, text, words):
    file = tmp_path / "a.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=words):
        list(read_lists(file, ("a",)))
    with pytest.raises(MissingFileError):
        list(read_lists(tmp_path / "b.json", ("a",)))


def test_memory_does_not_grow_with_an_entry_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 10)
    monkeypatch.setattr(json_stream, "_LONGEST_ENTRY", 100)
    file = tmp_path / "a.json"
    file.write_text('{"a": ["' + "x" * 10**5 + '"]}')
    with pytest.raises(UserError, match="not valid JSON"):
        list(read_lists(file, ("a",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a JSON list of results: expected '\\[', got 'the end of the file'; write it"),
        ("{}", r"expected '\[', got '\{"),
        ("[", "got 'the end of the file'"),
        ('[{"a": 1}', "got 'the end of the file'"),
        ('[{"a": 1} {"b": 2}]', r"expected ',' or '\]', got"),
        ('[{"a": 1},]', "not a JSON list"),
        ('[{"a": ', "not a JSON list"),
        ("[1] 2", "expected nothing behind the list"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000, "not a JSON list"),
        (b"[\xff]", "is not text in UTF-8"),
    ],
)
def test_files_that_are_no_list(tmp_path, text, words):
    path = tmp_path / "list.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words):
        list(read_list(path))
    with pytest.raises(MissingFileError, match="does not exist"):
        list(read_list(tmp_path / "nothing.json"))


def test_a_list_is_read_piece_by_piece(tmp_path, monkeypatch):
    values = [{"a": [random.Random(i).random(), -i, "ü]},[{"]} for i in range(30)] + [12345, []]
    path = tmp_path / "list.json"
    for text in (json.dumps(values), json.dumps(values, indent=3, ensure_ascii=False) + "\n"):
        path.write_text(f"\ufeff {text}", encoding="utf-8")
        for chunk in (1, 7, 64, 10**6):
            monkeypatch.setattr(json_stream, "_CHUNK", chunk)
            assert list(read_list(path)) == values
    path.write_text("[]")
    assert list(read_list(path)) == []
    # A value that never ends is not read to the end of the file.
    monkeypatch.setattr(json_stream, "_LONGEST_ENTRY", 1000)
    path.write_text('["' + "x" * 10**6)
    with pytest.raises(UserError, match="not a JSON list"):
        list(read_list(path))


def test_a_long_list_takes_no_more_memory(tmp_path, monkeypatch):
    """Each piece is let go, also without the garbage collector."""
    monkeypatch.setattr(json_stream, "_CHUNK", 10_000)
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"text": 3000 * "x"}] * 1000))
    gc.disable()
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_list(path)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
        gc.enable()
