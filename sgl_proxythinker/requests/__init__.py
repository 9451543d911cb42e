"""What may come in: requests are read, checked and named here, before SGLang's tokenizer and schedulers see them."""
