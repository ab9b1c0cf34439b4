from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from plait import AudioPart, ConfigurationError, FilePart, ImagePart
from plait.attachments import (
    MOST_BYTES,
    Inline,
    attachment,
    checked_image,
    file_data,
    file_name,
    file_type,
    image_source,
    image_type,
    media_type_of,
    parse_data_url,
)

if TYPE_CHECKING:
    from pathlib import Path

JPEG = b"\xff\xd8\xff\xe0\0\x04\xff\xd9 \xff\xda\0\x03\x01 \xff\0\xd9 \xff\xd0 \xff\xff\xd9"
GIF = b"GIF89a\1\0\1\0\x80\0\0;;;;;;!\xfe\3ha;\0,\0\0\0\0\1\0\1\0\x81" + bytes(12) + b"\2\2\0;\0;"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0IEND\xaeB`\x82"
WEBP = b"RIFF\x08\0\0\0WEBPVP8 "
WAVE = b"RIFF\x08\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("a.png", PNG, ImagePart(data=PNG, media_type="image/png")),
        ("a.png", JPEG, ImagePart(data=JPEG, media_type="image/jpeg")),
        ("no-ending", GIF, ImagePart(data=GIF, media_type="image/gif")),
        ("a.txt", WEBP, ImagePart(data=WEBP, media_type="image/webp")),
        ("a.wav", WAVE, AudioPart(data=WAVE, media_type="audio/wav")),
        ("a.bin", b"ID3\4", AudioPart(data=b"ID3\4", media_type="audio/mpeg")),
        ("a.pdf", b"%PDF-1.7", FilePart(data=b"%PDF-1.7", media_type="application/pdf", name="a.pdf")),
        ("a.txt", b"hello", FilePart(data=b"hello", media_type="text/plain", name="a.txt")),
        ("a.xyz1", b"hello", FilePart(data=b"hello", media_type="application/octet-stream", name="a.xyz1")),
    ],
)
def test_a_file_is_what_its_first_bytes_say(
    name: str, data: bytes, part: ImagePart | AudioPart | FilePart, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    assert attachment(tmp_path / name) == part
    assert attachment(str(tmp_path / name)) == part
    assert media_type_of(data) in (part.media_type, None)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.png", b"", "the attachment 'a.png' is empty"),
        ("a.png", PNG[:-8], "the attachment 'a.png' is a broken image/png image: its end is missing"),
        ("a.png", b"<svg/>", "the attachment 'a.png' is no PNG, JPEG, WebP or GIF image: it begins with b'<svg/>'"),
        ("a.pdf", b"%PDF-" + bytes(MOST_BYTES), "the attachment 'a.pdf' has more than 50 MB; make it smaller"),
        ("nowhere", None, "the attachment, the file 'nowhere', cannot be read: no such file or directory"),
        (".", None, "the attachment, '.', is no file"),
        ("", None, "an attachment is named by the path of a file, not ''"),
        ("a\0b", None, r"an attachment is named by the path of a file, not 'a\x00b'"),
        (b"a.png", None, "an attachment is named by the path of a file, not b'a.png'"),
        ("\ud800", None, r"an attachment is named by the path of a file, not '\ud800'"),
    ],
)
def test_what_cannot_be_attached(name: Any, data: bytes | None, sentence: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigurationError) as raised:
        attachment(name)  # tests run in their own folder
    assert str(raised.value) == sentence


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff%c" % marker + (len(data) + 2).to_bytes(2, "big") + data


def pieces(data: bytes) -> bytes:
    """Write data as a GIF holds it."""
    parts = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(b"%c" % len(part) + part for part in parts) + b"\0"


THUMBNAIL = b"\xff\xd8" + segment(0xDA, b"scan") + bytes(40) + b"\xff\xd9"
PHOTO = (  # in two scans, as those are that come into sight by and by
    b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + THUMBNAIL) + segment(0xDB, bytes(64)) + segment(0xC2, bytes(9))
    + segment(0xDA, bytes(6)) + bytes(range(255)) * 5 + b"\xff\0\xff\xd0" + bytes(99)
    + segment(0xDA, bytes(6)) + b"\xff\0" * 99 + b"\xff\xff\xd9"
)  # fmt: skip
FILM = (  # of 200 KB; its pieces are full of what looks like the end of a file
    b"GIF89a\1\0\1\0\xf7\0\0" + b"\0;;" * 256 + b"!\xff" + pieces(b"NETSCAPE2.0") + pieces(b"\1\0\0")
    + (b"!\xf9" + pieces(b"\0;\0;") + b"," + bytes(8) + b"\x80" + bytes(6) + b"\x08" + pieces(b"\0;" * 5_000)) * 20
    + b";"
)  # fmt: skip


@pytest.mark.parametrize(("data", "every"), [(JPEG, 1), (PHOTO, 1), (GIF, 1), (FILM, 97)])
def test_an_image_is_cut_wherever_it_ends_too_early(data: bytes, every: int) -> None:
    for behind in (b"", b"\0", b"what a camera wrote"):
        assert checked_image(data + behind, "it").data == data + behind
    kind = media_type_of(data)
    for end in [*range(6, len(data) - 1, every), len(data) - 1]:
        with pytest.raises(ConfigurationError) as raised:
            checked_image(data[:end], "it")
        assert str(raised.value) == f"it is a broken {kind} image: its end is missing"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\0\0" * 2**18,
        b"\xff\xd8" + b"\xff\xe0\0\2" * 2**18,
        b"\xff\xd8" + b"\xff" * 2**20,
        b"\xff\xd8\xff\xda" + b"\xff\0" * 2**19,
        b"\xff\xd8\xff" + b"\x01\xff" * 600_000 + b"\xd9",  # more markers than there are in any image
        b"GIF89a" + bytes(2**20),
        b"GIF89a" + bytes(7) + b"!\1" + b"\1\1" * 600_000 + b"\0;",
        b"GIF89a",
        b"GIF89a" + bytes(7) + b",",
    ],
)
def test_an_image_that_means_harm_is_broken(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="its end is missing"):
        checked_image(data, "it")


def test_an_images_bytes_say_what_it_is_whatever_it_is_called() -> None:
    assert image_type(ImagePart(data=WEBP)) == "image/webp"  # without a word it would be a PNG
    assert image_type(ImagePart(data=b"bytes of a new kind", media_type="image/avif")) == "image/avif"
    assert image_type(ImagePart(url="https://x.test/a.gif", media_type="image/gif")) == "image/gif"


@pytest.mark.parametrize(
    ("part", "kind", "name"),
    [
        (FilePart(data=b"hello", name="notes.txt"), "text/plain", "notes.txt"),
        (FilePart(data=b"hello", name="x.csv", media_type="text/x-mine"), "text/x-mine", "x.csv"),
        (FilePart(data=b"a\n%PDF-1.7", name="notes.txt"), "application/pdf", "notes.txt"),
        (FilePart(data=b"scan", name="a.pdf"), "application/pdf", "a.pdf"),
        (FilePart(data=PNG), "image/png", "file.png"),
        (FilePart(data=b"hello"), "application/octet-stream", "file.bin"),
        (FilePart(data=b"\x1f\x8b", name="x.csv.gz"), "application/octet-stream", "x.csv.gz"),
        (FilePart(file_id="f1", name="x.csv"), "text/csv", "x.csv"),
        (FilePart(file_id="f1"), "application/pdf", "file.pdf"),
    ],
)
def test_a_files_type_is_what_was_said_else_what_its_bytes_or_its_name_say(
    part: FilePart, kind: str, name: str
) -> None:
    assert (file_type(part), file_name(part, kind)) == (kind, name)
    assert file_data(part) == (None if part.data is None else Inline(kind, part.data))


def test_a_file_at_a_data_address_is_held_and_one_elsewhere_is_not() -> None:
    assert file_data(FilePart(url="Data:text/plain,gr%C3%BCn")) == ("text/plain", "grün".encode())
    assert file_data(FilePart(url="https://x.test/a.pdf")) is None
    with pytest.raises(ConfigurationError, match="a file part is a data: address whose data cannot be read; it must"):
        file_data(FilePart(url="data:application/pdf;base64,?"))


def test_an_images_source_is_its_address_or_its_bytes() -> None:
    assert image_source(ImagePart(url="HTTPS://x.test/a.gif")) == "HTTPS://x.test/a.gif"
    assert image_source(ImagePart(data=WEBP, media_type="image/png")) == ("image/webp", WEBP)
    assert image_source(ImagePart(data=b"new", media_type="image/avif")) == ("image/avif", b"new")
    assert image_source(ImagePart(data=b"%PDF-", media_type="image/avif")) == ("image/avif", b"%PDF-")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("data:image/png;base64,AAEC", ("image/png", b"\0\1\2")),
        ("DATA:text/plain;charset=utf-8;base64,YQ%3D%3D", ("text/plain", b"a")),
        ("data:image/PNG;BASE64,AA\nEC%0A", ("image/png", b"\0\1\2")),
        ("data:,a%20b", ("text/plain", b"a b")),
        ("data:image/png;base64,A", None),
        ("data:image/png", None),
        ("https://x.test/a,b", None),
    ],
)
def test_data_addresses(url: str, found: tuple[str, bytes] | None) -> None:
    assert parse_data_url(url) == found
