"""The base of every mapping of known keys in the configuration; groups of settings in files of their own start here."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, hide_input_in_errors=True)
