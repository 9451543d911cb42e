"""What a server counts for `/metrics` beside SGLang's own; with `--enable-metrics` only (docs/metrics.md)."""
