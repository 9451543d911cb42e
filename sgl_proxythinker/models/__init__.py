"""The models of one rank: their groups, vision towers, memory, graphs and streams."""
