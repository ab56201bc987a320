"""What a caller asks, free of any provider's wire format."""

from typing import NamedTuple


class Call(NamedTuple):
    """The few facts of a request that metering, limiting and routing need.

    ``input_tokens_max`` is the cheap upper bound (a token is at least one byte); ``output_cap`` is the cap the
    caller set,
    for one choice, or ``None``; ``choices`` is how many answers are billed (``n``, ``best_of``, prompts × ``n``).
    """

    operation: str
    model: str
    stream: bool = False
    #: The caller itself asked for the usage event of a stream, so it is not hidden from it.
    usage_wanted: bool = False
    choices: int = 1
    output_cap: int | None = None
    #: The body's field that holds the cap, where the caller sent one.
    cap_field: str = ""
    input_tokens_max: int = 0
    #: Output tokens billed beyond the cap, such as a rejected prediction.
    extra_output_tokens: int = 0
    #: ``False`` for operations that produce no billed output (embeddings).
    has_output: bool = True
    end_user: str = ""
    #: Names of the body's top-level members, so that an edit knows what is there without looking.
    members: tuple[str, ...] = ()
