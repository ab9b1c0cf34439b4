from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from plait import AudioPart, ConfigurationError, FilePart, ImagePart
from plait.attachments import MOST_BYTES, attachment, image_type, media_type_of

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0IEND\xaeB`\x82"
WEBP = b"RIFF\x08\0\0\0WEBPVP8 "
WAVE = b"RIFF\x08\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("a.png", PNG, ImagePart(data=PNG, media_type="image/png")),
        ("a.png", b"\xff\xd8\xff\xe0 \xff\xd9", ImagePart(data=b"\xff\xd8\xff\xe0 \xff\xd9", media_type="image/jpeg")),
        ("no-ending", b"GIF89a\0;", ImagePart(data=b"GIF89a\0;", media_type="image/gif")),
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


def test_an_images_bytes_say_what_it_is_whatever_it_is_called() -> None:
    assert image_type(ImagePart(data=WEBP)) == "image/webp"  # without a word it would be a PNG
    assert image_type(ImagePart(data=b"bytes of a new kind", media_type="image/avif")) == "image/avif"
    assert image_type(ImagePart(url="https://x.test/a.gif", media_type="image/gif")) == "image/gif"
