"""The command `proxythinker`: one name for what a person runs. Each of its commands is the `main` of a module."""
