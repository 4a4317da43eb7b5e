"""Text: the tokenizer, the detokenizer, the chat template and compact vocabularies."""
