"""Words: the tokenizer, the compact vocabulary and the turn layout."""
