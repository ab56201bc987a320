"""Reading tokens and judging their claims, without any key: strictness is in what these functions refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core import tokens
from faregate.core.tokens import (
    Caller,
    caller_id,
    caller_of,
    claims_fault,
    fitting_algorithms,
    header_fault,
    lacks,
    read,
)
from issuers import AUDIENCE, NOW, b64, rules, said

SECONDS = NOW // 1_000_000_000
EC = {"kty": "EC", "crv": "P-256"}


def plain(header: str = '{"alg":"RS256"}', claims: str = '{"iss":"x"}') -> bytes:
    return f"{b64(header)}.{b64(claims)}.{b64('signature')}".encode()


def test_a_token_is_taken_apart() -> None:
    """Header, claims, what was signed, and the signature."""
    found = read(plain())

    assert not isinstance(found, str)
    assert (found.header, found.claims, found.signature) == ({"alg": "RS256"}, {"iss": "x"}, b"signature")
    assert found.signed + b"." + b64("signature").encode() == plain()


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    """No bytes at all make reading fail in any other way."""
    found = read(data)

    assert found in ("size", "format")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_whatever_stands_in_the_segments_is_read_or_refused(header: bytes, claims: bytes) -> None:
    """Segments that are well-formed may hold anything."""
    found = read(f"{b64(header)}.{b64(claims)}.".encode())

    assert isinstance(found, str) or (type(found.header) is dict and type(found.claims) is dict)


@pytest.mark.parametrize("size", [tokens.TOKEN_BYTES_MAX, tokens.TOKEN_BYTES_MAX + 1])
def test_a_token_has_at_most_8_kib(size: int) -> None:
    """One byte more is not looked at."""
    claims = '{"iss":"x","pad":"%s"}'
    room = size - len(plain(claims=claims % ""))
    token = plain(claims=claims % ("x" * (room * 3 // 4)))
    token = token + b"A" * (size - len(token))

    assert (read(token) == "size") == (size > tokens.TOKEN_BYTES_MAX)


@pytest.mark.parametrize(
    ("moment", "fault"),
    [(59, None), (-59, None), (-60, "exp"), (-61, "exp")],
)
def test_clocks_may_differ_by_a_minute_at_the_end(moment: int, fault: str | None) -> None:
    """A token is good until sixty seconds after it ends."""
    assert claims_fault(said(exp=SECONDS + moment), rules(), SECONDS) == fault


@pytest.mark.parametrize(("moment", "fault"), [(60, None), (61, "nbf")])
@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_clocks_may_differ_by_a_minute_at_the_beginning(claim: str, moment: int, fault: str | None) -> None:
    """A token is good from sixty seconds before it begins."""
    assert claims_fault(said(**{claim: SECONDS + moment}), rules(), SECONDS) == fault


def test_beginnings_may_be_left_out_and_the_end_may_not() -> None:
    """Without an end a token would be good for ever."""
    assert claims_fault(said(nbf=None, iat=None), rules(), SECONDS) is None
    assert claims_fault(said(exp=None), rules(), SECONDS) == "exp"


@pytest.mark.parametrize(
    ("audience", "fault"),
    [(AUDIENCE, None), ([AUDIENCE], None), (["api://other", AUDIENCE], None), (["api://other"], "aud"), ([], "aud")],
)
def test_one_of_the_audiences_is_ours(audience: object, fault: str | None) -> None:
    """A token may be made for several; a prefix or another spelling is another one."""
    assert claims_fault(said(aud=audience), rules(), SECONDS) == fault


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ({"alg": "RS256"}, None),
        ({"alg": "ES256", "typ": "at+JWT", "kid": "x"}, None),
        ({"alg": "ES256", "typ": "application/at+jwt", "jku": "https://evil.example", "x5t": "x", "nonce": "x"}, None),
        ({"alg": "none"}, "alg"),
        ({"alg": "RS256", "crit": []}, "crit"),
        ({"alg": "RS256", "b64": True}, "crit"),
        ({"alg": "RS256", "typ": "logout+jwt"}, "format"),
        ({"alg": "RS256", "kid": 1}, "kid"),
    ],
)
def test_headers_are_judged_before_any_issuer(header: dict[str, object], fault: str | None) -> None:
    """What nobody may ask for is refused, what says where keys are is left alone."""
    assert header_fault(header) == fault


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        ({"kty": "RSA"}, {"RS256", "PS256"}),
        ({"kty": "RSA", "alg": "PS256"}, {"PS256"}),
        ({"kty": "RSA", "alg": "RS512"}, set()),
        ({"kty": "RSA", "use": "enc"}, set()),
        ({"kty": "RSA", "d": "x"}, set()),
        ({"kty": "RSA", "key_ops": ["verify"]}, {"RS256", "PS256"}),
        ({"kty": "RSA", "key_ops": ["sign"]}, set()),
        ({"kty": "RSA", "key_ops": "verify"}, set()),
        (EC, {"ES256"}),
        (EC | {"crv": "P-384"}, {"ES384"}),
        (EC | {"crv": "secp256k1"}, set()),
        ({"kty": "oct", "k": "x"}, set()),
        ({"kty": "oct", "alg": "HS256"}, set()),
        ({"kty": ["RSA"]}, set()),
        ({}, set()),
    ],
)
def test_a_key_decides_what_it_may_be_used_with(jwk: dict[str, object], algorithms: set[str]) -> None:
    """Its type, curve, use and algorithm, together with what the issuer lists."""
    assert fitting_algorithms(jwk, rules().algorithms) == algorithms


def test_claims_name_the_caller_by_precedence() -> None:
    """``azp`` before ``appid`` before ``client_id``, ``oid`` before ``sub``; unusable texts are passed over."""
    assert caller_of({"appid": "a", "client_id": "c", "sub": "s", "tid": "t"}) == Caller("a", "s", "t")
    assert caller_of({"azp": "z", "appid": "a", "oid": "o", "sub": "s"}) == Caller("z", "o")
    assert caller_of({"azp": "", "client_id": 7, "oid": "x" * 257, "sub": "a\nb", "tid": None}) == Caller()
    assert caller_of({"client_id": ["one"], "sub": ["one", "two"]}) == Caller("one")
    assert caller_of({"groups": "g"}, {"team": ("department", "groups")}) == Caller(team="g")


@pytest.mark.parametrize(
    ("claims", "missing"),
    [
        ({"roles": ["reader", "caller"], "scp": "a call b"}, ""),
        ({"roles": "caller", "scp": "call"}, ""),
        ({"roles": ["reader"], "scp": "call"}, "roles"),
        ({"roles": "reader caller", "scp": "call"}, "roles"),
        ({"roles": ["caller"], "scp": "callx"}, "scp"),
        ({"roles": [["caller"]], "scp": "call"}, "roles"),
        ({}, "roles"),
    ],
)
def test_claims_that_are_required_have_one_of_the_values(claims: dict[str, object], missing: str) -> None:
    """Whole words of lists, and of the texts that are lists; nothing else."""
    assert lacks(claims, rules(require=(("roles", ("caller", "admin")), ("scp", ("call",))))) == missing


def test_ids_of_clients_can_be_typed_and_never_meet() -> None:
    """A client keeps its id, issuers do not share any, and a name that no selector holds becomes a digest."""
    assert caller_id("entra", "6731de76-14a6") == "tok_entra:6731de76-14a6"
    odd = [caller_id("entra", name) for name in ("a b", "a,b", "a=b", "", "x" * 129, "~a")]

    assert len(set(odd)) == len(odd)
    assert all(one.startswith("tok_entra:~") and " " not in one and "," not in one for one in odd)
