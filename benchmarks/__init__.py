"""What guidance costs and what the server withstands: `python -m benchmarks.NAME` from the repository root.

guided_cost      decoding steps by batch, guided, at alpha 0 and mixed, prefill, KV tokens; against the plain base
served           over HTTP: many image chats at once against the plain base, second turns with and without cache
oracle_speedup   a guided server against the project's `transformers` loop
step_profile     where the time of a decoding step goes, by kernel and stream
fusion_cost      the formula alone, on a GPU
cpu_cost         a tiny triple on the CPU, to notice a slower worker
admission_cost   time to first token of another checkout and of this one, in turn
fuzz             thousands of requests that SGLang's own declarations allow or don't, and laws that must hold
soak             mixed chats for half an hour: memory, KV and tokens stay what they were
report           tables and a plot of the first three's results
"""
