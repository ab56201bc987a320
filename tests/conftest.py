"""What holds for all tests."""

from hypothesis import settings

# A test asserts no speed: on a busy machine an example may take any time, and pytest's own limit ends what hangs.
settings.register_profile("faregate", deadline=None)
settings.load_profile("faregate")
