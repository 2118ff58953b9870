"""Reading sources: what becomes a document, and one clear line for everything that cannot."""

import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from minicpt.common.errors import InputError
from minicpt.data import builtin
from minicpt.data.builtin import origin
from minicpt.data.documents import Document
from minicpt.data.sources import read as read_documents


def read(*arguments, **options) -> list[Document]:
    return list(read_documents(*arguments, **options))


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def names(documents: list[Document], folder: Path) -> list[str]:
    return [os.path.relpath(item.source, folder) for item in documents]


def refusal(*given: str) -> str:
    with pytest.raises(InputError) as caught:
        read(list(given))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_is_a_document_with_its_byte_order_mark_and_carriage_returns_gone(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read([path]) == [Document(path, "one\ntwo\nthree\n")]


def test_documents_come_in_the_given_order_and_a_file_counts_once(tmp_path):
    b, a = write(tmp_path / "d/b.txt", "b"), write(tmp_path / "d/a.txt", "a")
    (tmp_path / "link.txt").symlink_to(b)
    given = [b, str(tmp_path / "d"), str(tmp_path / "link.txt"), f"{tmp_path}/d/../d/a.txt"]
    assert read(given) == [Document(b, "b"), Document(a, "a")]
    assert [item.text for item in read([str(tmp_path / "d"), b])] == ["a", "b"]


def test_a_folder_gives_its_text_sorted_without_hidden_and_binary_files(tmp_path):
    for name in ("z.txt", "b/c.py", "b/a", "a.md", "b.rst", "caf\u00e9.weird"):
        write(tmp_path / name, f"text of {name}")
    write(tmp_path / ".hidden.txt", "no")
    write(tmp_path / ".git/config", "no")
    write(tmp_path / "picture.PNG", "no")
    write(tmp_path / "nul.txt", b"no\0")
    write(tmp_path / "late-nul", b"a" * 70000 + b"\0")
    write(tmp_path / "blank.txt", " \n\t\n")
    write(tmp_path / "empty.txt", "")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    expected = ["a.md", "b/a", "b/c.py", "b.rst", "caf\u00e9.weird", "z.txt"]
    assert names(read([str(tmp_path)]), tmp_path) == expected


def test_links_in_a_folder_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "elsewhere/far.txt", "far")
    write(tmp_path / "in/near.txt", "near")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/up").symlink_to(tmp_path)
    (tmp_path / "in/self").symlink_to("self")
    assert sorted(item.text for item in read([str(tmp_path / "in")])) == ["far", "near"]


def test_a_glob_matches_files_and_folders_each_once(tmp_path):
    for name in ("a.txt", "b.py", "c/d.txt", "c/e/f.txt"):
        write(tmp_path / name, "text")
    write(tmp_path / "g.png", "no")
    assert names(read([f"{tmp_path}/*.txt"]), tmp_path) == ["a.txt"]
    assert names(read([f"{tmp_path}/**/*.txt"]), tmp_path) == ["a.txt", "c/d.txt", "c/e/f.txt"]
    assert sorted(names(read([f"{tmp_path}/*"]), tmp_path)) == [
        "a.txt",
        "b.py",
        "c/d.txt",
        "c/e/f.txt",
    ]
    odd = write(tmp_path / "[odd].txt", "a file whose name looks like a glob")
    assert names(read([odd]), tmp_path) == ["[odd].txt"]


def test_jsonl_has_a_document_per_line_split_at_newlines_alone(tmp_path):
    first, third = '{"text": "one\u2028still one\\r\\nend"}', '{"text": " ", "id": 3}'
    lines = [first, "", third, '{"text":"4"}\r']
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert read([path]) == [
        Document(f"{path}:1", "one\u2028still one\nend", inside=path),
        Document(f"{path}:4", "4", inside=path),
    ]
    assert read([str(tmp_path)]) == read([path])


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("{oops", "not JSON"),
        ('{"body": "x"}', "'text'"),
        ('{"text": 3}', "'text'"),
        ('["text"]', "'text'"),
        ('{"text": "half \\ud800"}', "surrogate"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_of_jsonl_is_named_by_its_number(tmp_path, line, complaint):
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n\n' + line)
    message = refusal(path)
    assert "a.jsonl' line 3" in message and complaint in message


def test_a_whole_surrogate_pair_in_jsonl_is_a_character(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude00"}')
    assert read([path])[0].text == "😀"


def test_blocks_are_documents_of_their_own(tmp_path):
    path = write(tmp_path / "a.txt", "\n\none\n  more\n \t\ntwo\n\n\n\n  three\n")
    assert read([path], blocks=True) == [
        Document(f"{path}, block 1", "one\n  more", inside=path),
        Document(f"{path}, block 2", "two", inside=path),
        Document(f"{path}, block 3", "  three", inside=path),
    ]


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"fine \xc3\xa9 \xff", "not UTF-8 at byte 8"),
        (b"\xef\xbb\xbfab\xe9cd", "not UTF-8 at byte 5"),
        (b"text\0", "NUL byte at byte 4"),
        ("hello".encode("utf-16"), "UTF-16"),
        (b"", "empty"),
        (b" \n\n\t", "blank"),
        (b"\xef\xbb\xbf", "empty"),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_its_name(tmp_path, content, complaint):
    path = write(tmp_path / "a.txt", content)
    message = refusal(path)
    assert repr(path) in message and complaint in message


def test_what_is_no_utf8_in_a_folder_is_an_error_with_its_path(tmp_path):
    write(tmp_path / "fine.txt", "fine")
    bad = write(tmp_path / "deep/latin.txt", b"caf\xe9")
    assert repr(bad) in refusal(str(tmp_path)) and "byte 3" in refusal(f"{tmp_path}/**")


def test_missing_things_are_named(tmp_path):
    assert "nowhere.txt" in refusal(f"{tmp_path}/nowhere.txt")
    assert "matches no text" in refusal(f"{tmp_path}/*.txt")
    assert "holds no text" in refusal(str(tmp_path))
    assert "no corpus" in refusal()
    assert "builtin:docs" in refusal("builtin:poems")
    refusal("")
    refusal("with\0nul")
    refusal("new\nline")
    refusal("x" * 5000)
    path = write(tmp_path / "file.txt", "x")
    refusal(f"{path}/beneath")
    (tmp_path / "self").symlink_to("self")
    refusal(str(tmp_path / "self"))
    write(tmp_path / "blank.jsonl", "\n\n")
    assert "blank" in refusal(str(tmp_path / "blank.jsonl"))
    write(tmp_path / "blanks.jsonl", '{"text": ""}\n')
    assert "blank" in refusal(str(tmp_path / "blanks.jsonl"))


def test_pipes_devices_and_sockets_are_refused_unopened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        listener.bind("socket")
        for name in (str(tmp_path / "pipe"), str(tmp_path / "socket"), "/dev/zero"):
            assert "pipe, a device or a socket" in refusal(name)


def test_permission_denied_is_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "a/secret.txt", "text")

    def denied(*arguments, **others):
        raise PermissionError(13, "Permission denied", str(arguments[0]))

    monkeypatch.setattr("builtins.open", denied)  # root may read everything
    assert "secret.txt" in refusal(path) and "Permission denied" in refusal(path)
    monkeypatch.setattr(os, "scandir", denied)
    assert "Permission denied" in refusal(str(tmp_path))


def test_a_name_that_cannot_be_printed_is_escaped(tmp_path):
    os.makedirs(tmp_path / "d")
    with open(os.fsencode(tmp_path) + b"/d/a\xff\nb.txt", "wb") as file:
        file.write(b"text")
    (document,) = read([str(tmp_path / "d")])
    assert document.name.endswith("a\\udcff\\nb.txt")


def test_a_long_line_is_read_in_linear_time(tmp_path):
    """Twenty megabytes in one line; anything quadratic would take hours."""
    path = write(tmp_path / "long.txt", "a. B" * 5_000_000)
    begin = time.perf_counter()
    assert len(read([path])[0].text) == 20_000_000
    assert time.perf_counter() - begin < 5
    jsonl = write(tmp_path / "long.jsonl", json.dumps({"text": "a. B" * 1_000_000}))
    assert len(read([jsonl])[0].text) == 4_000_000


def test_the_built_in_prose():
    documents = read(["builtin:docs", "builtin:docs"])
    by_name = {item.name: item.text for item in documents}
    assert len(by_name) == len(documents) > 50
    assert list(by_name) == sorted(by_name)
    assert by_name["assert"].startswith('The "assert" statement')


def test_the_built_in_code_holds_the_library_without_tests_and_without_the_prose():
    found = [item.name for item in read(["builtin:code"])]
    assert {"json/decoder.py", "argparse.py", "email/message.py"} <= set(found)
    assert len(set(found)) == len(found) > 300
    parts = {part for name in found for part in name.split("/")}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "pydoc_data"}
    assert not [name for name in found if "_sysconfigdata" in name]
    assert all(name.endswith(".py") for name in found)


def test_a_python_without_its_library_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)  # makes the import fail
    assert "-stdlib" in refusal("builtin:docs")
    monkeypatch.setattr(builtin.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "-stdlib" in refusal("builtin:code")


def test_origin_names_the_version_where_it_matters():
    version = ".".join(map(str, sys.version_info[:3]))
    assert version in origin("builtin:docs") and version in origin("builtin:code")
    assert origin("a/b.txt") == "a/b.txt"
