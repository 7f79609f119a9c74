"""Tokens of a base model: its chat template and tokenizer without torch, and what they say about a dataset."""
