#!/usr/bin/env bash
# Costs of the step and of speculation on a GPU, in commands of under nine minutes; unpack and warm by robustness.sh.
#
#   speculation.sh tests K [ARGUMENTS]   tests that servers that write K tokens ahead must pass too
#   speculation.sh try BASE PROXY K      a short run of everything that is timed, with small batches
#   speculation.sh before OLD NAME...    guided steps of older code and of this one, in one lease: NAME is 32B or 7B;
#                                        OLD is a folder with sgl_proxythinker/ and patches/ of the older commit
#   speculation.sh forced BASE PROXY K P,P...  ms a token at forced acceptances of P, C(k) at 1; K may be auto
#   speculation.sh plain BASE PROXY      the plain base and the guided one without speculation
#
# COMMIT, OLD_COMMIT, BATCHES, LIMIT (s), JOBS, FLAGS (of guided_cost) and OUT come from the environment. Results and logs go to $OUT.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-results}
COMMIT=${COMMIT:-unknown}
BATCHES=${BATCHES:-1,8,32,64}
FLAGS=${FLAGS:-}
mkdir -p "$OUT"
# A host's image may forbid it, and each of a server's processes would compile 9,000 modules.
export PYTHONDONTWRITEBYTECODE=
export PYTHONPATH=$(python3 -m benchmarks.bare_checkout ~/meta):$HOME/site PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
export TOKENIZERS_PARALLELISM=false
step() { echo "== $* ($SECONDS s)"; }

cost() { # NAME COMMIT PATH ARGUMENTS: one engine or more of guided_cost
    local name=$1 commit=$2 path=$3
    shift 3
    step "$name"
    PYTHONPATH=$path timeout "${LIMIT:-280}" python3 -m benchmarks.guided_cost --batches "$BATCHES" --mixed 0 \
        --alpha-zero 0 --no-sampled --prefill 0x0 --attention-backend fa3 --models $HOME/weightless \
        --commit "$commit" --out "$OUT/$name.jsonl" $FLAGS "$@" 2>&1 | grep -v Warning | tail -n 12 | cut -c 1-400
    pkill -f '[s]glang::' || true # of one that was cut off
    tail -c 300000 "$OUT"/$name.*.log > "$OUT/$name.log" && rm -f "$OUT"/$name.guided.log "$OUT"/$name.plain*.log
    cat "$OUT/$name.jsonl" >> "$OUT/lines.jsonl" && rm "$OUT/$name.jsonl"
}

case "${1:-}" in
tests)
    step tests
    k=$2
    shift 2
    python3 -m benchmarks.gpu_tests --jobs "${JOBS:-6}" --within "${LIMIT:-560}" --commit "$COMMIT" \
        --out "$OUT/speculation-tests.json" --speculate "$k" "$@" 2>&1 | tee "$OUT/tests.log" | tail -n 60
    ;;
try)
    BATCHES=1,8 LIMIT=200 cost "try-$4" "$COMMIT" "$PYTHONPATH" --only guided --base "$2" --proxy "$3" --output-len 64 \
        --repeats 1 --speculate "$4" --acceptance 1
    ;;
before)
    mkdir -p ~/old && cp -r "$2/sgl_proxythinker" ~/old/ && cp -r "$2/patches" ~/old/sgl_proxythinker/
    shift 2
    turn=0
    for size in "$@"; do
        turn=$((turn + 1))
        [ "$size" = 32B ] && proxy=7B BATCHES=1,8,64 || proxy=3B BATCHES=1,64,256
        # In turns: old and new, then new and old.
        for code in $([ $((turn % 2)) = 1 ] && echo old new || echo new old); do
            path=$PYTHONPATH
            [ "$code" = old ] && path=$HOME/old:$PYTHONPATH
            [ "$code" = old ] && commit=${OLD_COMMIT:-old} || commit=$COMMIT
            cost "$code-$size-$turn" "$commit" "$path" --only guided --base "$size" --proxy "$proxy"
        done
    done
    ;;
forced)
    cost "forced-$2-$4" "$COMMIT" "$PYTHONPATH" --only guided --base "$2" --proxy "$3" --speculate "$4" --acceptance "$5"
    ;;
plain)
    cost "plain-$2" "$COMMIT" "$PYTHONPATH" --only plain-base --base "$2" --proxy "$3"
    cost "guided-$2" "$COMMIT" "$PYTHONPATH" --only guided --base "$2" --proxy "$3"
    ;;
*)
    grep '^#' "$0"
    exit 2
    ;;
esac
step end
