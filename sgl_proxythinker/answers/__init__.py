"""What goes out: answers say how they were guided, and errors say in one sentence what was wrong."""
