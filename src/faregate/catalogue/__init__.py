"""What we know of models: prices, maximum outputs, tokenizers. The data plane never imports it, but for ``tokens``."""
