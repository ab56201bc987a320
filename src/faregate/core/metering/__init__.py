"""From a provider's bytes to usage: event framing, the meter, and the fallback for providers that tell nothing."""
