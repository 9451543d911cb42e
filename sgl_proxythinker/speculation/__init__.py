"""Lossless speculative decoding of the guided law: the expert writes ahead, all models read it at once."""
