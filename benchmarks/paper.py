"""The paper's tables by one command: MathVista, MathVerse, MathVision, MMMU-Pro and R1-Onevision-Bench over strengths.

    python -m benchmarks.paper --url http://host:30000 --alphas 0,0.25,0.5,0.75,1 --without-amateur \\
        --out runs/32B-rethinker

docs/reproduce.md has the commands for each of the paper's numbers; `--help` has the flags.
"""

from sgl_proxythinker.evaluation.command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
