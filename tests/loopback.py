"""What clients in tests trust: nobody, because what they ask is on loopback and speaks no TLS.

A client that is not told so reads the system's authorities when it is made, which takes longer than most of the tests.
"""

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
