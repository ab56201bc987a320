"""Whether a certificate and its key can serve: they belong together, are in force, and the key is nobody else's.

The check is a handshake in memory, so that the library which will serve them is the one that judges them.
"""

import ssl
import stat
from pathlib import Path
from typing import NamedTuple

#: OpenSSL's verdicts on time, X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_NOT_YET_VALID, _EXPIRED = 9, 10
#: A handshake needs two rounds; more than this would be a loop.
_ROUNDS_MAX = 10


class TlsProblem(NamedTuple):
    """What is wrong, at which of ``certificate_file`` and ``key_file``."""

    key: str
    text: str
    expected: str = ""
    hint: str = ""


def certificate_problem(certificate_file: Path, key_file: Path) -> TlsProblem | None:
    """The first thing that keeps a listener from using the two files; ``None`` where they are good."""
    for key, file in (("certificate_file", certificate_file), ("key_file", key_file)):
        if not file.is_file():
            return TlsProblem(key, f"{file} is not a file", "a PEM file")
    mode = stat.S_IMODE(key_file.stat().st_mode)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        hint = f"chmod 600 {key_file}"
        return TlsProblem("key_file", f"{key_file} has mode {mode:04o}", "a key that only its owner reads", hint)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password is never asked for on a terminal: nobody sits at one when a service starts.
        server.load_cert_chain(certificate_file, key_file, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return TlsProblem("key_file", "the key does not belong to the certificate", "the key it was issued for")
        return TlsProblem("certificate_file", "the two files are not a certificate and its unlocked key in PEM form")
    except OSError as error:
        return TlsProblem("key_file", f"cannot be read: {(error.strerror or 'unknown error').lower()}")
    return _time_problem(server, certificate_file)


def _time_problem(server: ssl.SSLContext, certificate_file: Path) -> TlsProblem | None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(_ROUNDS_MAX):
        done = True
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLCertVerificationError as error:
                if error.verify_code == _EXPIRED:
                    return TlsProblem("certificate_file", "the certificate has expired", "one that is in force")
                if error.verify_code == _NOT_YET_VALID:
                    return TlsProblem("certificate_file", "the certificate is not yet in force", "one that is in force")
                # Whom a client must trust for it is the operator's affair.
                return None
        if done:
            break
    return None
