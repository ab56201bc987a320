"""What the answers of the admin API look like: one ``TypedDict`` for each, which the OpenAPI document is made of.

They are not applied to what is sent. ``tests/console/test_openapi.py`` holds real answers of every route to them.
"""
