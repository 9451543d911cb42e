"""`python -m sgl_proxythinker`: the command `proxythinker`, where it isn't installed."""

from sgl_proxythinker.commands.group import main

if __name__ == "__main__":
    main(prog_name="proxythinker")
