"""Evaluation on the paper's benchmarks: which answers a server gives under each strength, and what they are worth.

It asks over HTTP and needs no SGLang where it runs. Data flows one way: `benchmarks/` makes questions, `asking/` lets
inspect-ai put them to a server, `grading/` says of each answer what it claims and whether that is right, `summary.py`
counts, and `report/` shows it. `run_folder.py` is what they leave on the disk.
"""
