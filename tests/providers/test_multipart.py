from __future__ import annotations

from plait.providers.multipart import File, encode_form


def test_a_form_is_written_as_its_rules_say() -> None:
    kind, body = encode_form([("prompt", "an otter\r\n--x é"), ("f", File("a.gif", b"\r\n\0", "image/gif"))])
    media_type, _, boundary = kind.partition("; boundary=")
    assert media_type == "multipart/form-data"
    assert body.split(f"--{boundary}".encode()) == [
        b"",
        b'\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nan otter\r\n--x \xc3\xa9\r\n',
        b'\r\nContent-Disposition: form-data; name="f"; filename="a.gif"\r\nContent-Type: image/gif\r\n\r\n\r\n\0\r\n',
        b"--\r\n",
    ]


def test_a_form_without_fields() -> None:
    kind, body = encode_form([])
    assert body == f"--{kind.partition('=')[2]}--\r\n".encode()


def test_names_stay_inside_their_quotes() -> None:
    """As browsers write them, so that no name can begin a header or a field of its own."""
    _, body = encode_form([('a"\r\nX: y', "1"), ("b", File('c"\r\n.png', b"", "image/png"))])
    assert b'name="a%22%0D%0AX: y"\r\n\r\n1\r\n' in body
    assert b'filename="c%22%0D%0A.png"\r\n' in body


def test_a_boundary_is_never_the_same() -> None:
    assert len({encode_form([("a", "b")])[0] for _ in range(100)}) == 100


def test_half_surrogates_are_replaced() -> None:
    """UTF-8 has no bytes for them; in JSON, models and providers see the same sign."""
    assert b"\r\n\r\nan ? otter\r\n" in encode_form([("prompt", "an \ud83e otter")])[1]
    assert b'name="an ?"' in encode_form([("an \ud83e", "otter")])[1]
