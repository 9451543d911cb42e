"""From flags to running processes, or to a sentence that says why not."""
