"""The kinds of values that a setting can have, as pydantic types: text to a duration, a size, an address, a secret.

Values are strict: a number is not text and text is not a number, except where it came from the environment, where
everything is text. Every refusal carries what is expected and an example.
"""

import ipaddress
import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from faregate.config.findings import quoted
from faregate.config.tree import PlainNumber, Referred
from faregate.core import money
from faregate.core.networks import network
from faregate.core.pricing import charging

#: JSON that a configuration holds is for one small answer.
JSON_BODY_CHARACTERS_MAX = 16_384
JSON_BODY_DEPTH_MAX = 8

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_NAME = re.compile(NAME_PATTERN[:-1])
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB|B)")
_SIZE_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_GIGABYTES = re.compile(r"(?:0|[1-9][0-9]{0,6})(?:\.[0-9]{1,3})?")
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PREFIX = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+/?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


def wrong(code: str, problem: str, expected: str = "", hint: str = "") -> PydanticCustomError:
    """A refusal of a value that becomes a ``Finding``."""
    return PydanticCustomError(
        "faregate", "{problem}", {"code": code, "problem": problem, "expected": expected, "hint": hint}
    )


def shown(value: object) -> str:
    """A value for a message, but never one that was kept outside the file on purpose."""
    return "the referenced value" if isinstance(value, Referred) else quoted(value)


def _text(value: object) -> object:
    if isinstance(value, PlainNumber):
        raise wrong("CFG-TYPE", f"{value} is read as a number by YAML", "text", f'quote it: "{value}"')
    if isinstance(value, bool | int):
        raise wrong("CFG-TYPE", f"{str(value).lower()} is not text", "text", f'quote it: "{str(value).lower()}"')
    return value


def _whole(value: object) -> object:
    if isinstance(value, str):
        if isinstance(value, Referred) and re.fullmatch(r"-?[0-9]{1,18}", value):
            return int(value)
        raise wrong("CFG-TYPE", f"{shown(value)} is not a whole number", "a whole number")
    return value


def _yes_or_no(value: object) -> object:
    if isinstance(value, Referred) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool) and value is not None:
        raise wrong("CFG-TYPE", f"{shown(value)} is not true or false", "true or false")
    return value


def _duration(value: object) -> object:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if value is None:
            return value
        raise wrong("CFG-TYPE", f"{shown(value)} is not a duration", 'a number with ms, s, m, h or d, e.g. "60s"')
    return int(match[1]) * _DURATION_MS[match[2]]


def _size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is not None:
            return int(match[1]) * _SIZE_BYTES[match[2]]
        if not (isinstance(value, Referred) and value.isdecimal()):
            raise wrong(
                "CFG-TYPE", f"{shown(value)} is not a size", 'bytes, or a number with KiB, MiB or GiB, e.g. "64MiB"'
            )
        return int(value)
    return value


def _price(value: object) -> object:
    """A price keeps its text: the number that YAML read would be a binary fraction."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise wrong("CFG-TYPE", f"{shown(value)} is not a price", 'dollars as decimal text, e.g. "2.50"')
    try:
        money.picos(text)
    except ValueError as error:
        raise wrong(
            "CFG-RANGE", str(error), 'dollars as decimal text, from 0 and with at most 12 decimals, e.g. "2.50"'
        ) from None
    return str(text)


def _decimal(value: object, kind: str, example: str) -> str:
    """Decimal text, which the number that YAML read would no longer be."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise wrong("CFG-TYPE", f"{shown(value)} is not {kind}", f"{kind} as decimal text, e.g. {example}")
    return str(text)


def _percent(value: object) -> object:
    text = _decimal(value, "a percentage", '"12.5"')
    try:
        charging.ppm(text)
    except ValueError as error:
        raise wrong("CFG-RANGE", str(error), 'from 0 and with at most 4 decimals, e.g. "12.5"') from None
    return text


def _amount(value: object) -> object:
    text = _decimal(value, "an amount", '"0.001"')
    try:
        money.nanos(text)
    except ValueError as error:
        raise wrong(
            "CFG-RANGE", str(error), 'dollars as decimal text, from 0 and with at most 9 decimals, e.g. "0.001"'
        ) from None
    return text


def _gigabytes(value: object) -> object:
    text = _decimal(value, "a size of memory", '"7.5"')
    if _GIGABYTES.fullmatch(text) is None or not float(text):
        raise wrong("CFG-RANGE", f"{shown(text)} is not a size of memory", 'gigabytes above 0, e.g. "7.5"')
    return text


def _header(value: str) -> str:
    lower = value.lower()
    if _HEADER.fullmatch(lower) is None:
        raise wrong("CFG-RANGE", f"{shown(value)} is not the name of a header", "letters, digits and dashes")
    return lower


def _path_prefix(value: str) -> str:
    if len(value) > 1024 or _PREFIX.fullmatch(value) is None:
        raise wrong("CFG-RANGE", f"{shown(value)} is not the beginning of a path", "plain segments, e.g. /v1/ocr")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise wrong(
            "CFG-RANGE", f"{shown(value)} is not a name", "letters, digits, dots, dashes and underscores, at most 64"
        )
    return value


def _label(value: str) -> str:
    if not value or len(value) > 256 or not value.isprintable() or value != value.strip():
        raise wrong("CFG-RANGE", f"{shown(value)} is not a usable name", "1 to 256 printable characters")
    return value


def _json_body(value: object) -> object:
    """A mapping as JSON has it; numbers with a point, which YAML would read in its own way, are written as text."""
    if not isinstance(value, dict):
        raise wrong("CFG-TYPE", f"{shown(value)} is not a mapping", "a mapping, which is sent as JSON")
    read = _json_value(value, 0)
    if len(json.dumps(read)) > JSON_BODY_CHARACTERS_MAX:
        raise wrong("CFG-RANGE", "it is too long", f"at most {JSON_BODY_CHARACTERS_MAX} characters of JSON")
    return read


def _json_value(value: object, depth: int) -> object:
    if depth > JSON_BODY_DEPTH_MAX:
        raise wrong("CFG-RANGE", "it is nested too deep", f"at most {JSON_BODY_DEPTH_MAX} levels")
    if isinstance(value, dict):
        return {str(name): _json_value(below, depth + 1) for name, below in value.items()}
    if isinstance(value, list):
        return [_json_value(below, depth + 1) for below in value]
    if isinstance(value, PlainNumber):
        raise wrong(
            "CFG-TYPE", f"{value} is read as a number by YAML", "a whole number or text", f'quote it: "{value}"'
        )
    return str(value) if isinstance(value, str) else value


def _host(value: str) -> str:
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if not _is_host(bare):
        raise wrong("CFG-RANGE", f"{shown(value)} is not a host", "a host name or an address, e.g. 127.0.0.1")
    return bare


def _proxy_network(value: str) -> str:
    try:
        free = network(value).free
    except ValueError as error:
        raise wrong("CFG-RANGE", f"{shown(value)} {error}", "a network or an address, e.g. 10.0.0.0/8") from None
    if free >= (128 if ":" in value else 32):
        problem = f"{shown(value)} would believe everybody's X-Forwarded-For"
        raise wrong("CFG-UNSAFE", problem, "the addresses of your own reverse proxies, e.g. 10.0.0.5")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong("CFG-RANGE", "this is not a URL", "e.g. https://api.openai.com/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not _VISIBLE.fullmatch(value) or port == 0:
        raise wrong("CFG-RANGE", f"{shown(value)} is not an http or https URL", "e.g. https://api.openai.com/v1")
    if not _is_host(parts.hostname):
        raise wrong("CFG-RANGE", "its host is not a host name", "e.g. https://api.openai.com/v1")
    if parts.username is not None or parts.password is not None:
        raise wrong("CFG-SECRET", "it holds a user or a password", hint="put the credential into api_key")
    if parts.query or parts.fragment:
        raise wrong("CFG-RANGE", "it has a query or a fragment", "scheme, host and path only")
    return value.rstrip("/")


def proxy_url(value: str) -> str:
    """A proxy as it may be configured; empty for none.

    Raises:
        PydanticCustomError: it cannot be used; the value itself is not quoted, because it may hold a password.
    """
    if value == "":
        return value
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong(
            "CFG-RANGE", "this is not a URL; its port must be a number", "http://[user:password@]host:port"
        ) from None
    password = parts.netloc.rpartition("@")[0]
    if "@" in password:
        raise wrong("CFG-TYPE", "its password has a raw @", "http://user:password@host:port", "write %40 for @")
    if (
        parts.scheme != "http"
        or not parts.hostname
        or not port
        or not _VISIBLE.fullmatch(value)
        or parts.path not in ("", "/")
    ):
        raise wrong("CFG-RANGE", "this is not a proxy that Faregate can use", "http://[user:password@]host:port")
    if not _is_host(parts.hostname):
        raise wrong("CFG-RANGE", "its host is not a host name", "http://[user:password@]host:port")
    return value.rstrip("/")


def _secret(value: object) -> object:
    value = _text(value)
    if isinstance(value, str):
        if not _VISIBLE.fullmatch(value):
            raise wrong(
                "CFG-SECRET", "it is empty or has spaces or characters that no header can carry", "the secret alone"
            )
        if value.lower() in PLACEHOLDERS:
            raise wrong(
                "CFG-SECRET", "this is a placeholder, not a secret", "the provider's key, e.g. ${OPENAI_API_KEY}"
            )
    return value


#: Words that examples use for a secret; a key that nobody replaced should not reach a provider.
PLACEHOLDERS = frozenset(
    (
        "changeme",
        "change-me",
        "admin",
        "secret",
        "password",
        "sk-1234",
        "sk-xxx",
        "xxx",
        "todo",
        "your-api-key",
        "your_api_key",
    )
)


def _is_host(host: str) -> bool:
    return is_address(host) or _HOST.fullmatch(host) is not None


def is_address(host: str) -> bool:
    """Whether ``host`` is a literal IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches ``host``; a name counts only if it is ``localhost``."""
    bare = host.strip("[]")
    if is_address(bare):
        return ipaddress.ip_address(bare).is_loopback
    return bare == "localhost" or bare.endswith(".localhost")


def is_private(host: str) -> bool:
    """Whether ``host`` is a literal address that is not on the public internet, loopback left out."""
    return is_address(host) and not ipaddress.ip_address(host).is_global and not is_loopback(host)


def _duration_text(value: int) -> str:
    return f"{value}ms"


def _reveal(value: SecretStr) -> str:
    return value.get_secret_value()


_TEXT_SCHEMA: dict[str, Any] = {"type": "string"}
_DURATION_SCHEMA: dict[str, Any] = {"type": "string", "pattern": "^[0-9]{1,12}(ms|s|m|h|d)$", "examples": ["60s"]}
_SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]{1,15}(B|KiB|MiB|GiB)$"}],
    "examples": ["64MiB"],
}
_PRICE_SCHEMA: dict[str, Any] = {"type": ["string", "number"], "examples": ["2.50"]}
_PERCENT_SCHEMA: dict[str, Any] = {"type": ["string", "number"], "examples": ["12.5"]}
_GIGABYTES_SCHEMA: dict[str, Any] = {"type": ["string", "number"], "examples": ["7.5"]}

Text = Annotated[StrictStr, BeforeValidator(_text)]
Whole = Annotated[StrictInt, BeforeValidator(_whole)]
Flag = Annotated[StrictBool, BeforeValidator(_yes_or_no)]
#: Milliseconds.
Duration = Annotated[
    StrictInt,
    BeforeValidator(_duration),
    Field(gt=0, le=366 * 86_400_000),
    PlainSerializer(_duration_text),
    WithJsonSchema(_DURATION_SCHEMA),
]
#: Bytes.
Size = Annotated[StrictInt, BeforeValidator(_size), Field(gt=0), WithJsonSchema(_SIZE_SCHEMA)]
Port = Annotated[Whole, Field(ge=1, le=65_535)]
#: Dollars as the text that was written.
Price = Annotated[str, BeforeValidator(_price), WithJsonSchema(_PRICE_SCHEMA)]
#: Dollars that somebody pays, to nine decimals.
Amount = Annotated[str, BeforeValidator(_amount), WithJsonSchema(_PRICE_SCHEMA)]
#: A percentage as the text that was written, to four decimals.
Percent = Annotated[str, BeforeValidator(_percent), WithJsonSchema(_PERCENT_SCHEMA)]
#: A name that we make up, and may use in headers, metrics and paths.
Name = Annotated[Text, AfterValidator(_name)]
#: A name that somebody else made up, such as a model's.
Label = Annotated[Text, AfterValidator(_label)]
#: Gigabytes as the text that was written, to three decimals.
Gigabytes = Annotated[str, BeforeValidator(_gigabytes), WithJsonSchema(_GIGABYTES_SCHEMA)]
#: In lower case.
Header = Annotated[Text, AfterValidator(_header)]
#: A mapping that is sent as JSON.
JsonBody = Annotated[dict[str, Any], BeforeValidator(_json_body)]
PathPrefix = Annotated[Text, AfterValidator(_path_prefix)]
Host = Annotated[Text, AfterValidator(_host)]
ProxyNetwork = Annotated[Text, AfterValidator(_proxy_network)]
Url = Annotated[Text, AfterValidator(_url)]
Proxy = Annotated[Text, AfterValidator(proxy_url)]
#: Shown nowhere; written out only when one process hands the configuration to another.
Secret = Annotated[
    SecretStr, BeforeValidator(_secret), PlainSerializer(_reveal, when_used="json"), WithJsonSchema(_TEXT_SCHEMA)
]
