"""An issuer of tokens in this process: keys of every kind, good tokens, and every bad one that we could think of.

Tokens are put together by hand, because no library would make the bad ones; only signatures come from cryptography.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from faregate.core import tokens

ISSUER = "https://login.example.com/tenant/v2.0"
AUDIENCE = "api://faregate"
#: Nanoseconds since 1970 at which the tokens are looked at.
NOW = 1_795_000_000 * 1_000_000_000

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def b64(data: bytes | dict[str, Any] | str) -> str:
    """Base64url without padding, of JSON where it is an object."""
    if isinstance(data, dict):
        data = json.dumps(data, separators=(",", ":"))
    return base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


def number(value: int, size: int = 0) -> str:
    """A number as JWK have it."""
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class Signer:
    """One private key with its name, and what is published of it."""

    def __init__(self, kid: str, algorithm: str, private: PrivateKey) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private = private

    @classmethod
    def make(cls, kid: str = "k1", algorithm: str = "RS256", bits: int = 2048) -> Signer:
        """A new key."""
        kind, curve = tokens.ALGORITHMS[algorithm]
        if kind == "RSA":
            return cls(kid, algorithm, rsa.generate_private_key(65537, bits))
        if kind == "EC":
            return cls(kid, algorithm, ec.generate_private_key(_CURVES[curve]))
        return cls(kid, algorithm, ed25519.Ed25519PrivateKey.generate())

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public key as it is published."""
        return {"kid": self.kid, "use": "sig", "alg": self.algorithm} | self._public() | members

    def _public(self) -> dict[str, Any]:
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        if isinstance(public, ec.EllipticCurvePublicKey):
            point, size = public.public_numbers(), (public.key_size + 7) // 8
            curve = {256: "P-256", 384: "P-384", 521: "P-521"}[public.key_size]
            return {"kty": "EC", "crv": curve, "x": number(point.x, size), "y": number(point.y, size)}
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes(Encoding.Raw, PublicFormat.Raw))}

    def sign(self, data: bytes, algorithm: str = "") -> bytes:
        """A signature as JWS have it."""
        algorithm = algorithm or self.algorithm
        private = self.private
        if isinstance(private, rsa.RSAPrivateKey):
            digest = _HASHES[algorithm[2:]]
            if algorithm.startswith("PS"):
                scheme: padding.AsymmetricPadding = padding.PSS(padding.MGF1(digest), digest.digest_size)
            else:
                scheme = padding.PKCS1v15()
            return private.sign(data, scheme, digest)
        if isinstance(private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(private.sign(data, ec.ECDSA(_HASHES[algorithm[2:]])))
            size = (private.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        return private.sign(data)

    def token(self, header: dict[str, Any] | str | None = None, claims: dict[str, Any] | str | None = None) -> str:
        """A token signed by this key; texts stand as they are."""
        head = header if isinstance(header, str) else self.header(**(header or {}))
        body = claims if isinstance(claims, str) else said(**(claims or {}))
        signed = f"{b64(head)}.{b64(body)}"
        return f"{signed}.{b64(self.sign(signed.encode()))}"

    def header(self, **changed: Any) -> dict[str, Any]:
        """The usual header; ``None`` leaves a member out."""
        return _with({"typ": "JWT", "alg": self.algorithm, "kid": self.kid}, changed)


def said(**changed: Any) -> dict[str, Any]:
    """The usual claims; ``None`` leaves one out."""
    now = NOW // 1_000_000_000
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 3600,
        "nbf": now - 60,
        "iat": now - 60,
        "azp": "app-1",
        "oid": "person-1",
        "sub": "pairwise-1",
        "tid": "tenant-1",
    }
    return _with(usual, changed)


def _with(usual: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (usual | changed).items() if value is not None}


def rules(**fields: Any) -> tokens.Issuer:
    """The issuer as it is configured."""
    defaults: dict[str, Any] = {
        "name": "entra",
        "issuer": ISSUER,
        "audiences": (AUDIENCE,),
        "algorithms": ("RS256", "PS256", "ES256", "ES384"),
        "team": "research",
        "project": "search",
    }
    return tokens.Issuer(**(defaults | fields))


class Bad(NamedTuple):
    """One hostile token and the words that it may be refused with."""

    name: str
    token: str
    reasons: tuple[str, ...]


def hostile(rsa_key: Signer, ec_key: Signer, stranger: Signer, other_curve: Signer) -> Iterator[Bad]:
    """Over two hundred tokens, none of which opens anything.

    ``rsa_key`` and ``ec_key`` are published by the issuer, ``other_curve`` too; ``stranger`` by nobody.
    """
    yield from _algorithms(rsa_key, ec_key, stranger, other_curve)
    yield from _headers(rsa_key, stranger)
    yield from _claims(rsa_key)
    yield from _shapes(rsa_key, ec_key)
    yield from _signatures(rsa_key, ec_key, stranger)


def _algorithms(rsa_key: Signer, ec_key: Signer, stranger: Signer, other_curve: Signer) -> Iterator[Bad]:
    body = b64(said())
    for name in ("none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS1", "RSA-OAEP", "dir", "A128KW"):
        head = b64(rsa_key.header(alg=name))
        yield Bad(f"alg {name!r} unsigned", f"{head}.{body}.", ("alg",))
        yield Bad(f"alg {name!r} over a signature", f"{head}.{body}.{b64(rsa_key.sign(b'x'))}", ("alg",))
    for value in (None, 1, True, ["RS256"], {"RS256": 1}, "RS256 ", " RS256", "rs256", "RS256\x00", "ＲＳ256"):
        yield Bad(f"alg {value!r}", rsa_key.token({"alg": value}), ("alg",))
    # HMAC with what everybody can read as its secret.
    public = rsa_key.private.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    secrets = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(rsa_key.jwk()).encode(),
        "n": rsa_key.jwk()["n"].encode(),
        "empty": b"",
    }
    for secret_name, secret in secrets.items():
        for name in ("HS256", "HS384", "HS512"):
            signed = f"{b64(rsa_key.header(alg=name))}.{body}"
            mac = hmac.digest(secret, signed.encode(), f"sha{name[2:]}")
            yield Bad(f"{name} with the public key as {secret_name}", f"{signed}.{b64(mac)}", ("alg",))
    # A key used with an algorithm that is not its own.
    for signer, name in (
        (rsa_key, "ES256"),
        (ec_key, "RS256"),
        (ec_key, "ES384"),
        (rsa_key, "ES384"),
        (ec_key, "PS256"),
    ):
        signed = f"{b64(signer.header(alg=name))}.{body}"
        yield Bad(
            f"{name} with a key of {signer.algorithm}",
            f"{signed}.{b64(signer.sign(signed.encode(), signer.algorithm))}",
            ("alg",),
        )
    for name in ("RS384", "RS512", "PS384", "PS512", "ES512", "EdDSA", "Ed25519"):
        signed = f"{b64(rsa_key.header(alg=name))}.{body}"
        signature = rsa_key.sign(signed.encode(), name if name[:2] in ("RS", "PS") else "RS256")
        yield Bad(f"{name}, which the issuer does not list", f"{signed}.{b64(signature)}", ("alg",))
    # The algorithm is listed and the key published, but for another one.
    signed = f"{b64(rsa_key.header(alg='PS256'))}.{body}"
    yield Bad("PS256 by a key for RS256", f"{signed}.{b64(rsa_key.sign(signed.encode(), 'PS256'))}", ("alg",))
    signed = f"{b64(other_curve.header(alg='ES256'))}.{body}"
    yield Bad("ES256 by a key of P-384", f"{signed}.{b64(other_curve.sign(signed.encode(), 'ES256'))}", ("alg",))
    yield Bad("a stranger's key under a known name", Signer("k1", "RS256", stranger.private).token(), ("sig",))


def _headers(key: Signer, stranger: Signer) -> Iterator[Bad]:
    for crit in (["exp"], ["b64"], ["x"], [], "exp", None, {"exp": 1}, [1], ["alg"], ["http://example.com/x"]):
        if crit is not None:
            yield Bad(f"crit {crit!r}", key.token({"crit": crit}), ("crit",))
    for b64_value in (False, True, 0, "false"):
        yield Bad(f"b64 {b64_value!r}", key.token({"b64": b64_value}), ("crit",))
    yield Bad("b64 in crit", key.token({"b64": False, "crit": ["b64"]}), ("crit",))
    for kind in ("logout+jwt", "dpop+jwt", "JWE", "JOSE+JSON", "", 1, ["JWT"], "secevent+jwt", "JWT;x"):
        yield Bad(f"typ {kind!r}", key.token({"typ": kind}), ("format",))
    for extra in ({"cty": "JWT"}, {"enc": "A256GCM"}, {"zip": "DEF"}, {"cty": ""}):
        yield Bad(f"header with {extra}", key.token(extra), ("format",))
    # Whatever a token says of its key is its maker's word alone.
    forged = {
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/x",
        "jwk": stranger.jwk(),
        "x5c": ["MIIB"],
    }
    for name, value in forged.items():
        yield Bad(f"{name} under a known kid", Signer("k1", "RS256", stranger.private).token({name: value}), ("sig",))
        yield Bad(f"{name} under its own kid", Signer("k9", "RS256", stranger.private).token({name: value}), ("kid",))
    for kid in ("k9", "", "K1", "k1 ", "../k1", "k1\x00", "'; DROP TABLE keys", "k" * 200):
        yield Bad(f"kid {kid[:20]!r}", key.token({"kid": kid}), ("kid",))
    for odd in (1, True, ["k1"], {"k1": 1}, "k" * 300):
        yield Bad(f"kid {str(odd)[:20]}", key.token({"kid": odd}), ("kid",))
    yield Bad("no kid where several keys fit", key.token({"kid": None}), ("kid",))


def _claims(key: Signer) -> Iterator[Bad]:
    now = NOW // 1_000_000_000
    issuers: tuple[Any, ...] = (
        *("https://evil.example", ISSUER + "/", ISSUER.upper(), ISSUER[:-1], ISSUER + "/../v2.0", " " + ISSUER, ""),
        *("http://login.example.com/tenant/v2.0", ISSUER.replace("tenant", "other"), ISSUER + "?x", ISSUER + "#"),
        *(1, True, [ISSUER], {"iss": ISSUER}, None),
    )
    for issuer in issuers:
        yield Bad(f"iss {issuer!r}", key.token(None, {"iss": issuer}), ("iss",))
    audiences: tuple[Any, ...] = (
        *("api://other", AUDIENCE + "/", AUDIENCE[:-1], AUDIENCE + "x", AUDIENCE.upper(), " " + AUDIENCE, "", "*"),
        *([], ["api://other"], ["api://other", AUDIENCE + "-2"], [[AUDIENCE]], [AUDIENCE, 1], [None], {"0": AUDIENCE}),
        *(1, True, None, f"{AUDIENCE} api://other", f"{AUDIENCE},api://other", ["x"] * 65 + [AUDIENCE]),
    )
    for audience in audiences:
        yield Bad(f"aud {str(audience)[:40]}", key.token(None, {"aud": audience}), ("aud",))
    moments: tuple[Any, ...] = (
        *(now - 61, now - 3600, 0, -1, 1, None, str(now + 3600), f"{now + 3600}.5", True, [now + 3600], {"exp": 1}),
        *(now + 3600.5, float(now + 3600), 10**12 * 1_000, 10**18, 2**63, 10**30, -(10**30), "never", ""),
    )
    for moment in moments:
        yield Bad(f"exp {moment!r}", key.token(None, {"exp": moment}), ("exp",))
    for raw in ("1e99", "Infinity", "NaN", "-Infinity", "1e400", "1" * 5000, "0x7fffffff", "01"):
        text = json.dumps(said(exp=None))[:-1] + f',"exp":{raw}}}'
        yield Bad(f"exp written {raw[:20]}", key.token(None, text), ("exp", "format"))
    for moment in (now + 61, now + 3600, str(now), now - 0.5, True, [now], 10**18, -1, 2**63):
        yield Bad(f"nbf {moment!r}", key.token(None, {"nbf": moment}), ("nbf",))
        yield Bad(f"iat {moment!r}", key.token(None, {"iat": moment}), ("nbf",))


def _shapes(key: Signer, ec_key: Signer) -> Iterator[Bad]:
    good = key.token()
    head, body, signature = good.split(".")
    twice = {
        "two exp": json.dumps(said())[:-1] + ',"exp":9999999999}',
        "two aud": '{"aud":"api://other",' + json.dumps(said())[1:],
        "two iss, one escaped": json.dumps(said())[:-1] + ',"\\u0069ss":"https://evil.example"}',
        "two below": json.dumps(said())[:-1] + ',"x":{"a":1,"a":2}}',
    }
    for name, text in twice.items():
        yield Bad(f"claims with {name}", key.token(None, text), ("format",))
    yield Bad("two alg", key.token('{"alg":"none","alg":"RS256","kid":"k1"}'), ("format",))
    yield Bad("two kid", key.token('{"alg":"RS256","kid":"k9","kid":"k1"}'), ("format",))
    for text in (
        "",
        "null",
        "[]",
        "1",
        '"x"',
        "{",
        "{}x",
        "\ufeff{}",
        "{'a':1}",
        '{"a":1,}',
        "[" * 3000,
        '{"a":' * 1000,
    ):
        yield Bad(f"claims {text[:12]!r}", key.token(None, text), ("format", "iss"))
        yield Bad(f"header {text[:12]!r}", key.token(text or "\n"), ("format", "alg"))
    bare = f"{b64(key.header())}.{b64(bytes([0xFF, 0xFE]) + b'{}')}"
    yield Bad("claims that are no UTF-8", f"{bare}.{b64(key.sign(bare.encode()))}", ("format",))
    variants = {
        "padded header": f"{head}=.{body}.{signature}",
        "padded claims": f"{head}.{body}==.{signature}",
        "padded signature": f"{head}.{body}.{signature}==",
        "space inside": f"{head}.{body[:9]} {body[9:]}.{signature}",
        "newline inside": f"{head}.{body}\n.{signature}",
        "tab at the end": f"{good}\t",
        "plus and slash": good.replace("-", "+").replace("_", "/") + "+/",
        "a dot more": f"{good}.",
        "a dot first": f".{good}",
        "four parts": f"{good}.{signature}",
        "five parts, as encrypted ones have": f"{head}.{body}.{body}.{body}.{signature}",
        "two parts": f"{head}.{body}",
        "no header": f".{body}.{signature}",
        "no claims": f"{head}..{signature}",
        "unicode letters": f"{head}.{body}.{signature[:-4]}ａｂｃｄ",
        "percent escapes": f"{head}%2E{body}.{signature}",
        "zero byte": f"{head}.{body}.{signature}\x00",
        "JSON serialization": json.dumps({"protected": head, "payload": body, "signature": signature}),
        "signature cut to a length that is no base64": f"{head}.{body}.{signature[: len(signature) // 4 * 4 - 3]}",
        "loose bits in the header": f"{_loose(head)}.{body}.{signature}",
        "loose bits in the claims": f"{head}.{_loose(body)}.{signature}",
        "loose bits in the signature": f"{head}.{body}.{_loose(signature)}",
    }
    for name, token in variants.items():
        yield Bad(name, token, ("format", "sig"))
    yield Bad("nested in a token", key.token({"cty": "JWT"}, f'"{good}"'), ("format",))
    yield Bad("nested without saying so", key.token(None, f'"{good}"'), ("format",))
    yield Bad("9 KiB", key.token(None, {"pad": "x" * 9 * 1024}), ("size",))
    yield Bad("64 KiB", key.token(None, {"pad": "x" * 64 * 1024}), ("size",))
    yield Bad("9 KiB of header", ec_key.token({"pad": "x" * 9 * 1024}), ("size",))
    yield Bad("9 KiB of dots", "." * 9 * 1024, ("size",))


def _loose(segment: str) -> str:
    """The same bytes written with bits that stand for nothing, or the segment with a letter changed."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(segment[-1])
    return segment[:-1] + alphabet[last ^ 1]


def _signatures(rsa_key: Signer, ec_key: Signer, stranger: Signer) -> Iterator[Bad]:
    for signer in (rsa_key, ec_key):
        head, body, signature = signer.token().split(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        name = signer.algorithm
        changed: dict[str, bytes] = {
            "stripped": b"",
            "one byte": b"\x00",
            "cut by one": raw[:-1],
            "cut in half": raw[: len(raw) // 2],
            "one byte more": raw + b"\x00",
            "one byte before": b"\x00" + raw,
            "zeros": bytes(len(raw)),
            "ones": b"\xff" * len(raw),
            "reversed": raw[::-1],
            "twice": raw + raw,
            "of another token": signer.sign(b"something else"),
        }
        for at in range(0, len(raw), max(1, len(raw) // 16)):
            changed[f"bit {at * 8} flipped"] = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        for what, value in changed.items():
            yield Bad(f"{name} signature {what}", f"{head}.{body}.{b64(value)}", ("sig",))
        for claim, new in (("oid", "person-2"), ("azp", "app-2"), ("roles", ["admin"]), ("exp", said()["exp"] + 1)):
            yield Bad(f"{name} claims changed: {claim}", f"{head}.{b64(said(**{claim: new}))}.{signature}", ("sig",))
        yield Bad(f"{name} header changed", f"{b64(signer.header(x=1))}.{body}.{signature}", ("sig",))
    signed = f"{b64(rsa_key.header())}.{b64(said())}"
    yield Bad("signed by a stranger", f"{signed}.{b64(stranger.sign(signed.encode()))}", ("sig",))
    der = ec_key.private
    assert isinstance(der, ec.EllipticCurvePrivateKey)
    signed = f"{b64(ec_key.header())}.{b64(said())}"
    yield Bad("signature in DER", f"{signed}.{b64(der.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}", ("sig",))
