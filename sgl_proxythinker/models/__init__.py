"""The models of one rank: their groups, memory, graphs and streams."""
