"""What holds for all tests."""

from hypothesis import settings

from soaking import examples

# A test asserts no speed: on a busy machine an example may take any time, and pytest's own limit ends what hangs.
# Properties that say no number of examples of their own are looked at half as long as usual; `make soak` looks longer.
settings.register_profile("faregate", deadline=None, max_examples=examples(50, 1_000))
settings.load_profile("faregate")
