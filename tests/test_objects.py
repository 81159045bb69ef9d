"""Objects in a store: what is read is what was written, and whatever goes wrong is one line."""

import pytest

from diffse import objects
from diffse.errors import DiffseError


def fails(action, *words: str) -> str:
    with pytest.raises(DiffseError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def test_what_is_read_is_what_was_written(store):
    url = objects.join(store, "a", "b.bin")
    data = bytes(range(256)) * 8
    assert not objects.exists(url)
    objects.write(url, data)
    assert objects.exists(url)
    assert objects.read(url) == data
    assert objects.read(url, 10, 300) == data[10:310]
    assert objects.read(url, 2000) == data[2000:]
    assert objects.read(url, 2000, 1000) == data[2000:]
    assert objects.read(url, length=5) == data[:5]
    assert objects.read(url, 5000, 10) == b""
    assert objects.read(url, 7, 0) == b""
    assert objects.entry(url).size == len(data)


def test_an_empty_object(store, tmp_path):
    url = f"{store}/empty"
    objects.write(url, b"")
    assert objects.read(url) == b""
    objects.download(url, tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_listing_is_what_lies_below(store):
    for key in ("a/1", "a/b/2", "ab/3", "a"):
        objects.write(f"{store}/{key}", key.encode())
    assert [entry.url for entry in objects.listing(f"{store}/a")] == [f"{store}/a/1", f"{store}/a/b/2"]
    assert [entry.url for entry in objects.listing(f"{store}/a/")] == [f"{store}/a/1", f"{store}/a/b/2"]
    assert [entry.size for entry in objects.listing(store)] == [1, 3, 5, 4]
    assert not list(objects.listing(f"{store}/c"))


def test_large_files_go_in_parts_and_come_back_whole(store, tmp_path):
    source, url = tmp_path / "large", f"{store}/large"
    source.write_bytes(b"0123456789abcdef" * (2 * objects.PART // 16 + 1))
    objects.upload(source, url)
    assert objects.entry(url).etag.endswith("-3")
    objects.download(url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["back", "large"]


def test_what_is_not_there_is_said(store, tmp_path):
    fails(lambda: objects.read(f"{store}/none"), f"{store}/none: no such object")
    fails(lambda: objects.download(f"{store}/none", tmp_path / "x"), "no such object")
    fails(lambda: objects.entry(f"{store}/none"), "no such object")
    fails(lambda: list(objects.listing("s3://no-such-bucket/a")), "there is no bucket 'no-such-bucket'")
    fails(lambda: objects.upload(tmp_path / "none", f"{store}/x"), "none: no such file")
    for wrong in ("/a/b", "s3://", "http://x/y"):
        fails(lambda wrong=wrong: objects.split(wrong), f"'{wrong}' is not a location in a store")
    assert not list(tmp_path.iterdir())
