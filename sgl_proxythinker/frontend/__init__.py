"""Programs: the offline engine, `proxy_gen` and the backends of SGLang's language."""
