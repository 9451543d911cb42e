"""Will these models start as one server, and what fits? Answered without weights and without a GPU.

proxythinker doctor --model-path BASE --proxy-expert-path E --proxy-amateur-path A --gpu-memory 140
"""
