"""The tiny trained family: its task, its corpus, its training and its evaluation. `README.md` says how it all runs."""
