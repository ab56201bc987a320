"""The catalogue of bad inputs on the admin API: every row, in modules by what it is about.

Ids are those of the catalogue (A01 to A90); what follows the number tells variants apart.
"""

from bad_input import admin_key_rows, admin_limit_rows, admin_list_rows, admin_provider_rows
from bad_input.admin_row import CANARY, Row

__all__ = ["CANARY", "ROWS", "Row"]

ROWS = (*admin_key_rows.ROWS, *admin_limit_rows.ROWS, *admin_provider_rows.ROWS, *admin_list_rows.ROWS)
