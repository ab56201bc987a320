"""A client that is made from the served document works: types, calls, lists and refusals (CAPABILITIES K5)."""

from pathlib import Path

import aiopenapi3
import httpx2
import pytest

from commands import served
from console_parts import parts


def session(*arguments: object, **options: object) -> httpx2.Client:
    """What the client speaks HTTP with; it goes by the type that is told here."""
    return httpx2.Client(*arguments, **options)  # type: ignore[arg-type]


def test_a_client_made_from_the_document_makes_reads_and_revokes_a_key(tmp_path: Path) -> None:
    """Its types are those of the document, and what it is told fits them."""
    with parts(tmp_path) as made, served(made.app) as url:
        document = httpx2.get(f"{url}/api/openapi.json").text
        client = aiopenapi3.OpenAPI.loads(f"{url}/api/openapi.json", document, session_factory=session)
        client.authenticate(adminKey=made.admin_key())
        new_key = client._.create_key.data.get_type()

        key = client._.create_key(data=new_key(name="ci", team="red").model_dump(exclude_unset=True))
        read = client._.read_key(parameters={"key_id": key.id})
        revoked = client._.revoke_key(parameters={"key_id": key.id}, data={"reason": "done"})
        listed = client._.list_keys(parameters={"state": "revoked"})

        assert (type(key).__name__, type(read).__name__) == ("MadeKey", "Key")
        assert (read.name, read.team) == ("ci", "red")
        assert made.console.ring.holder(key.secret) is not None
        assert (revoked.state, [each.id for each in listed.data]) == ("revoked", [key.id])
        with pytest.raises(aiopenapi3.errors.HTTPClientError) as refused:
            client._.read_key(parameters={"key_id": "key_none"})
        assert refused.value.status_code == 404
        assert b'"code":"not_found"' in refused.value.data
