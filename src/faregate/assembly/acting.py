"""The configuration that acts, as the trail of changes tells it, and what of it is kept so that a restart can compare.

``acting.json`` in the data folder holds every setting that is not the default, without secrets. It is written once its
line is in the trail: a crash in between has the same change told twice, never not at all.
"""

import hashlib
import hmac
import json
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import msgspec

from faregate.config.folder import DataFolder
from faregate.config.secrets import write_private
from faregate.config.telling import Setting, Settings, difference, settings_of
from faregate.errors import FaregateError

if TYPE_CHECKING:
    from faregate.config.schema import Config
    from faregate.console.state import Console
    from faregate.ports import TrailMark

logger = logging.getLogger("faregate.acting")

#: Kind of the lines that tell of it.
KIND: Final = "configuration"

_decode = msgspec.json.Decoder(dict[str, Setting]).decode


class Acting:
    """A configuration that is to act, or does."""

    def __init__(self, folder: DataFolder, config: "Config", referred: Collection[str], session: str) -> None:
        """``referred`` are the paths whose values came from references; ``session`` is the secret that marks them.

        With another session secret all secrets count as changed: nobody could tell which did.
        """
        self._file = folder.acting
        key = bytes.fromhex(session)

        def mark(path: str, text: str) -> str:
            return hmac.new(key, json.dumps([KIND, path, text]).encode(), hashlib.sha256).hexdigest()

        self._settings: Settings = settings_of(config, referred, mark)

    def tell(self, console: "Console") -> "TrailMark | None":
        """A line in the trail of how this differs from what acted before; ``None`` where it does not.

        Raises:
            StorageFull: it cannot be written.
        """
        from faregate.console.writing import tell

        found = difference(self._before(), self._settings)
        return None if found is None else tell(console, KIND, "", found.before, found.after)

    def keep(self) -> None:
        """Note that this is what acts, and that the trail has told so."""
        try:
            write_private(self._file, msgspec.json.encode(self._settings))
        except FaregateError as error:
            logger.error("acting_not_kept", extra={"why": error.message, "then": "the next start tells it once more"})

    def tell_start(self, console: "Console") -> None:
        """Tell how what acts from this start on differs from what acted before it.

        An installation whose disk is full starts all the same; then the next start tells it.
        """
        from faregate.console.audit import Author, author

        before = author.set(Author("start"))
        try:
            if self.tell(console) is not None:
                self.keep()
        except FaregateError as error:
            logger.error("configuration_not_told", extra={"why": error.message})
        finally:
            author.reset(before)

    def _before(self) -> Settings | None:
        try:
            return _decode(self._file.read_bytes())
        except (OSError, msgspec.DecodeError):
            # What nobody can read is told as not known; the whole of what acts is told beside it.
            return None
