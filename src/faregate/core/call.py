"""What a caller asks, free of any provider's wire format."""

from typing import Final, NamedTuple

from faregate.core.usage import Measure

#: Kinds of tokens that a call may use besides text, as bits of ``Call.media``: each may be dearer than text, so the
#: bound of a call counts those it can use and no others.
AUDIO_IN: Final = 1
IMAGE_IN: Final = 2
AUDIO_OUT: Final = 4
IMAGE_OUT: Final = 8
CACHE_WRITE_1H: Final = 16


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
    #: Bits of the token kinds above.
    media: int = 0
    #: The most that the call may use of other units; held, and billed only as far as the answer reports them.
    at_most: tuple[Measure, ...] = ()
    #: What a good answer is billed where it does not say itself: known from the request alone (images, characters).
    declared: tuple[Measure, ...] = ()
    #: What the model reads is not all in the body (stored files, conversations, fetched pages): its context window,
    #: once for each of ``turns``, bounds the input.
    whole_context: bool = False
    turns: int = 1
    #: The service tier asked for; empty is the provider's standard one.
    service_tier: str = ""
    #: The answer only accepts the work: what it costs is learnt later, and stays held until then.
    job: bool = False
    #: Ids of objects kept by the provider that the call names; they must be the caller's own.
    objects: tuple[str, ...] = ()
    #: Nothing in the body can be changed (a form, an uploaded file): an output cap cannot be injected.
    sealed: bool = False
    #: Names the member that caps tool calls, and the cap to put there, where the caller sent none.
    tool_cap: tuple[str, int] | None = None
    #: How many calls it is billed as, where a price is per call: the lines of a batch.
    calls: int = 1
    #: What is to be remembered of the objects that the answer makes, in the dialect's own words.
    facts: bytes = b""
    #: The longest input of one of ``calls``, which decides their tier; 0 where it is not known apart from all of them.
    longest_input: int = 0
