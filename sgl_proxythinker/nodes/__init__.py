"""A server over several hosts: its nodes meet at `--dist-init-addr`, agree on what they serve, and end together."""
