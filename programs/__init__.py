"""Programs over images, and what a person runs: `proxythinker NAME`, in a checkout also `python -m programs.NAME`.

Their one name is `sgl_proxythinker.programs`, by which everything imports them; the other rooms never do.
"""
