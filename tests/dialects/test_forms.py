"""Forms: what is read of them, what is refused because another reader could read something else, and edits."""

from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faregate.core.call import Call
from faregate.dialects import forms
from faregate.dialects.forms import Form
from faregate.errors import Problem

CALL = Call("audio.transcriptions", "m")
PART = b'Content-Disposition: form-data; name="%b"\r\n\r\n%b'


def form(*parts: bytes, boundary: bytes = b"XyZ") -> bytes:
    """A form of these parts."""
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def field(name: bytes, value: bytes) -> bytes:
    return PART % (name, value)


def edited(body: bytes, model: str | None) -> bytes:
    return forms.edit(body, CALL, model=model, cap=None, cap_field="", ask_usage=False)


def parsed(body: bytes) -> Form:
    found = forms.parse(body)
    assert isinstance(found, Form), found
    return found


FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n\0\r\n\xff--'


def test_parts_are_places_in_the_body() -> None:
    """Names, file names and contents are found, and no file is copied."""
    body = form(field(b"model", b"m"), FILE, field(b"prompt", "Grüße\r\n--XyY".encode()))
    found = parsed(body)

    assert [(part.name, part.filename, body[part.start : part.end]) for part in found.parts] == [
        ("model", None, b"m"),
        ("file", "a.wav", b"\0\r\n\xff--"),
        ("prompt", None, "Grüße\r\n--XyY".encode()),
    ]
    assert found.parts[1].content_type == "audio/wav"
    assert forms.text(found, body, "prompt") == "Grüße\r\n--XyY"


@given(
    st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=8), st.text(max_size=40), max_size=5),
    st.lists(st.tuples(st.sampled_from(["file", "image[]"]), st.binary(max_size=200)), max_size=4),
)
def test_what_clients_send_is_read_as_it_was_meant(fields: dict[str, str], files: list[tuple[str, bytes]]) -> None:
    """Forms written by a stock client read back the same, here and in the standard library's parser."""
    sent: list[Any] = [(name, (f"{name}.bin", data, "application/octet-stream")) for name, data in files]
    if not sent:
        sent = [("file", ("a", b"", "audio/wav"))]
    request = httpx2.Request("POST", "http://a.example", data=fields, files=sent)
    body, content_type = request.read(), request.headers["content-type"].encode()

    found = parsed(body)
    assert forms.announced(content_type, body)
    assert {part.name: body[part.start : part.end].decode() for part in found.parts if part.filename is None} == fields
    assert [body[part.start : part.end] for part in found.parts if part.filename] == [part[1][1] for part in sent]
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type + b"\r\n\r\n" + body)
    others = [str(part.get_param("name", header="content-disposition")) for part in message.iter_parts()]
    assert [part.name for part in found.parts] == others


@pytest.mark.parametrize(
    "body",
    [
        b"no delimiter",
        b"--\r\n",
        b"--" + b"a" * 71 + b"\r\n",
        b"--a \r\n",
        b'--XyZ\nContent-Disposition: form-data; name="a"\n\nb\n--XyZ--',
        b"preamble\r\n" + form(field(b"a", b"b")),
        form(field(b"a", b"b"))[:-4],
        form(field(b"a", b"b")) + b"epilogue",
        b"--XyZ--\r\n",
        # What another reader may take for a delimiter: after a bare line feed, with blanks, or longer than it.
        form(field(b"a", b"b\n--XyZ\n" + field(b"model", b"x"))),
        form(field(b"a", b"b\r\n--XyZ \r\n" + field(b"model", b"x"))),
        form(field(b"a", b"b\r\n--XyZZ\r\n")),
        form(field(b"a", b"--XyZ")),
        # Headers that can be read in two ways.
        form(b'Content-Disposition: form-data; name="a"; name="b"\r\n\r\nc'),
        form(b"Content-Disposition: form-data; name*=utf-8''a; name=\"b\"\r\n\r\nc"),
        form(b'Content-Disposition: form-data; filename="x\\"; name="model"\r\n\r\nc'),
        form(b'Content-Disposition: form-data; name="mo\\del"\r\n\r\nc'),
        form(b'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"\r\n\r\nc'),
        form(b'Content-Disposition: form-data;\r\n name="a"\r\n\r\nc'),
        form(b'Content-Disposition: form-data; name="a"\nX: y\r\n\r\nc'),
        form(b'Content-Disposition : form-data; name="a"\r\n\r\nc'),
        form(b'Content-Disposition: attachment; name="a"\r\n\r\nc'),
        form(b"Content-Disposition: form-data\r\n\r\nc"),
        form(b'Content-Disposition: form-data; name=""\r\n\r\nc'),
        form(b'Content-Disposition: form-data; name="a\0b"\r\n\r\nc'),
        form(b'Content-Disposition: form-data; name="' + b"a" * 257 + b'"\r\n\r\nc'),
        form(b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\nbQ=='),
        form(b'Content-Disposition: form-data; name="a"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\nc'),
        form(b"Content-Type: text/plain\r\n\r\nc"),
        form(b"X: y\r\n" * 9 + field(b"a", b"b")),
        form(b"X: " + b"y" * 5000 + b"\r\n" + field(b"a", b"b")),
        form(*[field(b"a", b"b")] * 129),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    """A form that is broken, or that some server would read differently, never passes."""
    problem = forms.parse(body)
    assert isinstance(problem, Problem)
    assert problem.code == "form_invalid"
    assert problem.message.startswith("Form is not valid: ")


@pytest.mark.parametrize(
    ("parts", "code", "param"),
    [
        ([field(b"model", b"a"), field(b"model", b"b")], "field_conflict", "model"),
        ([field(b"model[]", b"a")], "field_type", "model[]"),
        ([field(b"model[0]", b"a"), field(b"model", b"b")], "field_type", "model[0]"),
        ([field(b"api_base", b"a")], "field_forbidden", "api_base"),
        ([field(b"metadata[api_key]", b"a")], "field_forbidden", "metadata[api_key]"),
        ([field(b"extra_body", b' {"base_url":"x"} ')], "field_forbidden", "extra_body.base_url"),
        ([field(b"_charset_", b"utf-16")], "form_invalid", None),
    ],
)
def test_fields_that_steer_or_stand_twice_are_refused(parts: list[bytes], code: str, param: str | None) -> None:
    """Names that choose a host or a credential never pass, nor two readings of one field."""
    body = form(*parts)
    problem = forms.steering(parsed(body), body, frozenset(("model",)))
    assert problem is not None
    assert (problem.code, problem.param) == (code, param)


def test_lists_are_lists() -> None:
    """Fields that may stand several times may."""
    body = form(field(b"image[]", b"a"), field(b"image[]", b"b"), field(b"image", b"c"))
    found = parsed(body)
    assert forms.steering(found, body, frozenset(("model",))) is None
    assert len(found.named("image")) == 3


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=XyZ", b"XyZ"),
        (b'Multipart/Form-Data;boundary="XyZ"', b"XyZ"),
        (b"multipart/form-data; charset=utf-8; boundary=XyZ", b"XyZ"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b'multipart/form-data; boundary="Xy\nZ"', None),
        (b"multipart/form-data; boundary=XyZ; boundary=abc", None),
        (b"multipart/mixed; boundary=XyZ", None),
        (b"application/json", None),
    ],
)
def test_the_header_must_announce_the_boundary(content_type: bytes, boundary: bytes | None) -> None:
    """A body whose boundary is not the one that its header names would be two forms to two readers."""
    assert forms.boundary_of(content_type) == boundary
    assert forms.announced(content_type, form(field(b"a", b"b"))) is (boundary is not None)
    assert not forms.announced(content_type, form(field(b"a", b"b"), boundary=b"XyZ2"))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_another_model_is_spliced_in(at: int) -> None:
    """Only the model's own bytes change, wherever the field stands, and nothing changes where it says the same."""
    parts = [FILE, field(b"prompt", b"model")]
    parts.insert(at, field(b"model", b"mine"))
    body = form(*parts)

    assert edited(body, "theirs") == body.replace(b"mine", b"theirs")
    assert edited(body, "mine") is body
    assert edited(body, None) is body


def test_a_model_is_put_in_where_there_is_none() -> None:
    """A model that only the path named becomes a field."""
    body = form(FILE)
    told = edited(body, "theirs")
    assert told.endswith(body)
    assert forms.text(parsed(told), told, "model") == "theirs"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"3", 3),
        (b"", None),
        (b"03", 3),
        (b"0", "field_range"),
        (b"11", "field_range"),
        (b"+3", "field_type"),
        (b"3.0", "field_type"),
        ("３".encode(), "field_type"),
        (b"9" * 5000, "field_type"),
        (b"\xff", "json_utf8"),
    ],
)
def test_whole_numbers(value: bytes, told: int | str | None) -> None:
    """Plain digits within reason, and nothing else."""
    body = form(field(b"n", value))
    found = forms.count(parsed(body), body, "n", 1, 10)
    assert (found.code if isinstance(found, Problem) else found) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(b"true", True), (b"True", True), (b"1", True), (b"false", False), (b"", False), (b"maybe", None)],
)
def test_flags(value: bytes, told: bool | None) -> None:
    """True and false in the spellings of form-minded clients."""
    body = form(field(b"stream", value))
    found = forms.flag(parsed(body), body, "stream")
    assert (None if isinstance(found, Problem) else found) is told


def test_text_of_another_encoding_is_refused() -> None:
    """A field that says it is not UTF-8 would be another text to the provider."""
    part = b'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain; charset=utf-7\r\n\r\nm'
    body = form(part)
    problem = forms.text(parsed(body), body, "model")
    assert isinstance(problem, Problem)
    assert problem.code == "json_utf8"


@given(
    st.lists(
        st.sampled_from([b"--", b"XyZ", b"\r\n", b"\n", b"\r", b'form-data; name="a"', b"Content-Disposition: "])
        | st.binary(max_size=8),
        max_size=40,
    )
)
@example([b"--XyZ", b"\r\n"])
def test_junk_never_raises(pieces: list[bytes]) -> None:
    """Any bytes are a form or a refusal; a form edits without an error and stays one."""
    for head in (b"", b"--XyZ\r\n"):
        body = head + b"".join(pieces)
        found = forms.parse(body)
        if isinstance(found, Form) and len(found.named("model")) < 2:
            assert isinstance(forms.parse(edited(body, "other")), Form)
