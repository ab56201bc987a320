"""Our own count of a realtime turn whose provider told no usage, never more than what was held for it. Pure."""

from faregate.core.usage import NO_USAGE, Measure, Usage, measures
from faregate.dialects.openai_realtime import Setup
from faregate.dialects.realtime_usage import heard_tokens, spoken_tokens, tokens_of_text
from faregate.proxy.realtime_holds import ITEM_SECONDS_MAX, TurnHold
from faregate.proxy.realtime_turns import Context, Turn


def estimated(turn: Turn, context: Context, setup: Setup) -> Usage:
    """What a response used as far as it came: what it probably read, and what was delivered of it."""
    held: TurnHold = turn.hold
    most = held.reservation.amounts
    read = context.estimate(most.input_tokens) if most.input_tokens else NO_USAGE
    spoken = min(spoken_tokens(turn.audio_bytes, setup.output_bytes_per_second), most.output_tokens)
    written = min(tokens_of_text(turn.characters), most.output_tokens - spoken)
    return read._replace(output_text=written, output_audio=spoken)


def heard(turn: Turn, setup: Setup) -> Usage:
    """What a transcript probably is billed: by the second where it is priced so, else by tokens."""
    held: TurnHold = turn.hold
    rate = setup.input_bytes_per_second
    seconds = min(-(-turn.audio_bytes // rate), ITEM_SECONDS_MAX)
    by_second = measures((Measure("seconds", "", seconds),))
    if not held.tariff.unpriced(by_second):
        return Usage(other=by_second)
    most = held.reservation.amounts
    tokens = heard_tokens(turn.audio_bytes, rate)
    # People say two or three words a second, so that half as many tokens are written as are heard, and more hardly.
    written = tokens_of_text(turn.characters) or tokens // 2
    return Usage(input_audio=min(tokens, most.input_tokens), output_text=min(written, most.output_tokens))


def delivered_tokens(turn: Turn, setup: Setup) -> int:
    """Output tokens that were delivered so far."""
    return tokens_of_text(turn.characters) + spoken_tokens(turn.audio_bytes, setup.output_bytes_per_second)
