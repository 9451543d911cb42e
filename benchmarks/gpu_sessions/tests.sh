#!/usr/bin/env bash
# Tests on a GPU host, in commands of under ten minutes; unpack by robustness.sh.
#
#   tests.sh all          gpu_tests, the whole selection, then those that want the GPU's memory for themselves
#   tests.sh speculating  what servers that write three tokens ahead must pass too
#   tests.sh both         the two at once: on a host of several GPUs, a third of the cores for the second
#   tests.sh some ARGUMENTS   of pytest
#
# COMMIT, LIMIT (s, default 540), JOBS, KERNELS, AFTER and OUT come from the environment. Results, failures as they come,
# and logs go to $OUT. KERNELS is a folder that `python -m benchmarks.sglang_kernels` filled: else servers compile them, and
# wait minutes for each other. AFTER is what a run that was cut off left (gpu-tests.ended.txt): the same goes on there.
# About one worker for every four cores: each has a server or more, whose schedulers poll. One H200 with 16 cores ended
# 650 tests in ten minutes.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-results}
LIMIT=${LIMIT:-540}
mkdir -p "$OUT"
# A host's image may forbid it, and each of a server's processes would compile 9,000 modules.
export PYTHONDONTWRITEBYTECODE=
export PYTHONPATH=$HOME/site PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
export SGLANG_OPT_USE_CUSTOM_ALL_REDUCE_V2=0 PYTEST_ADDOPTS="--tb=short -p no:cacheprovider"
[ -z "${KERNELS:-}" ] || { mkdir -p ~/.cache/tvm-ffi && cp -r "$KERNELS/." ~/.cache/tvm-ffi/; }
JOBS=${JOBS:-$(($(env -u OMP_NUM_THREADS nproc) / 4))}
SPECULATING=$(for name in oracle laws sampling trace seeds memory_pressure families tiny_served http grammars image_cache; do
    echo tests/test_$name.py; done)

run() { # NAME JOBS ARGUMENTS
    local name=$1 jobs=$2
    shift 2
    python3 -m benchmarks.gpu_tests --jobs "$jobs" --within "$LIMIT" --commit "${COMMIT:-unknown}" --out "$OUT/$name.json" \
        "$@" > "$OUT/$name.log" 2>&1
    echo "$name $? ($SECONDS s)"
    tail -n 1 "$OUT/$name.log" | cut -c 1-600
    [ ! -f "$OUT/$name.failures.txt" ] || grep '^== ' "$OUT/$name.failures.txt" | head -n 60
}

case "${1:-}" in
all)
    run gpu-tests "$JOBS" ${AFTER:+--after "$AFTER"}
    ;;
speculating)
    run speculating "$JOBS" --speculate 3 ${AFTER:+--after "$AFTER"} $SPECULATING
    ;;
both)
    run gpu-tests $((JOBS * 2 / 3)) & run speculating $((JOBS / 3)) --speculate 3 $SPECULATING
    wait
    ;;
some)
    shift
    run some "$JOBS" "$@"
    ;;
*)
    grep '^#' "$0"
    exit 2
    ;;
esac
