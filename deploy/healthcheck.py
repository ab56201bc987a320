"""Whether the gateway of this container is alive: exit 0 or 1. It speaks TLS or plain HTTP, whichever is configured.

python healthcheck.py [PORT]      default: FAREGATE_GATEWAY_PORT, which goes before the configuration file, else 4000
"""

import http.client
import os
import ssl
import sys

SECONDS = 1.0


def alive(connection: http.client.HTTPConnection) -> bool:
    """Whether the gateway answers there."""
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    """Ask in plain HTTP, then over TLS; the exit code."""
    port = int(arguments[0] if arguments else os.environ.get("FAREGATE_GATEWAY_PORT") or 4000)
    if alive(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)):
        return 0
    # Its certificate names the service, not this address. Nothing secret is sent, nothing in the answer believed.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return 0 if alive(http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=context)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
