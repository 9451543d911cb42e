"""Every SGLang name that this package imports, in two files by when they may be imported.

`launch` before the CPU support is in place, `runtime` after it. No other module of the package imports SGLang at its
top; `patches/calls.py` has a record for every name here.
"""
