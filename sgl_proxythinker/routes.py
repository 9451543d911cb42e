def refusal(path): return None
