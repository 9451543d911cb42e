#!/usr/bin/env bash
# The GPU's part of docs/robustness.md, in commands of under nine minutes, on a machine that has torch and no network.
#
#   robustness.sh unpack PART...   take in parts of SGLang's runtime (the folders that gpu_bundle.py writes)
#   robustness.sh warm             have the kernels of a mixed batch compiled, before anything is timed
#   robustness.sh pictures         tests of pictures
#   robustness.sh chats OLD        64 image chats at once, the older code and then this one
#   robustness.sh soak [MINUTES]   seven minutes of mixed chats, 64 at once, after each picture was asked about once:
#                                  longer than one command; start it with setsid and OUT=~/soak, and fetch it later.
#                                  What PyTorch has allocated is written down too (allocated/)
#   robustness.sh admission OLD KIND...   time to first token in pairs, older code against this one, side by side;
#                                  STARTS and PAIRS are how many of both
#
# OLD is a folder with sgl_proxythinker/ and patches/ of the older commit. Results and the ends of logs go to $OUT.
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-results}
mkdir -p "$OUT"
step() { echo "== $* ($SECONDS s)"; }

prepare() {
    export PYTHONPATH=$(python3 -m benchmarks.bare_checkout ~/meta):$HOME/site PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
    export TOKENIZERS_PARALLELISM=false
    # A host's image may forbid it, and each of a server's processes would compile 9,000 modules.
    export PYTHONDONTWRITEBYTECODE=
}

prepare_old() {
    mkdir -p ~/old
    cp -r "$1/sgl_proxythinker" ~/old/
    cp -r "$1/patches" ~/old/sgl_proxythinker/
}

about() {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
    python3 -c 'import PIL.features as f, torch, sglang, sgl_proxythinker, sgl_proxythinker.patches
import PIL, aiohttp, httpx, psutil, hypothesis, requests, openai, pytest, yarl, pybase64
print(sglang.__version__, torch.__version__, sgl_proxythinker.__path__, "Pillow", PIL.__version__,
      {name: f.check(name) for name in ("jpg", "zlib", "libtiff", "webp", "avif", "jpg_2000", "littlecms2")})'
}

# The first graph of a fresh machine waits a minute for kernels to be compiled; no result of this one counts.
warm() {
    step warm up
    timeout 200 python3 -m benchmarks.soak --minutes 0.1 --at-once 8 --models random > "$OUT/warm.log" 2>&1 || true
    pkill -f '[s]glang::' || true # of a client that was cut off
    tail -n 1 "$OUT/warm.log" | cut -c 1-300
}

chats() { # NAME PATH: 64 image chats at once on a guided server of the code that is first on PATH
    mkdir -p $HOME/chats
    # A client that is cut off leaves its server, and the next one has no memory: time enough, and nothing left.
    PYTHONPATH=$2 timeout 240 python3 -m benchmarks.served image_chats --base 7B --proxy 3B --only guided \
        --attention-backend fa3 --server-flags "--cuda-graph-max-bs-decode 64" --commit "$1" \
        --models $HOME/weightless --out "$HOME/chats/$1.jsonl" | tail -n 4
    pkill -f '[s]glang::' || true
    cat "$HOME/chats/$1.jsonl" >> "$OUT/image_chats.jsonl"
}

case "${1:-}" in
unpack)
    shift
    for part in "$@"; do bash "$part/gpu_unpack.sh" "$part"; done
    ;;
warm)
    prepare && warm
    ;;
pictures)
    prepare && about && warm
    step tests of pictures
    timeout 380 python3 -m pytest -q -p no:cacheprovider -p no:xdist -p no:timeout -o addopts= -o timeout= \
        tests/test_picture*.py 2>&1 | tee "$OUT/pictures.log" | tail -n 40
    ;;
chats)
    prepare && prepare_old "$2" && about
    step image chats, older code
    chats old "$HOME/old:$PYTHONPATH"
    step image chats, this code
    chats new "$PYTHONPATH"
    ;;
soak)
    prepare && about
    step soak
    export ALLOCATED_LOG=$OUT/allocated.log PYTHONPATH=$PWD/benchmarks/gpu_sessions/allocated:$PYTHONPATH
    timeout 900 python3 -m benchmarks.soak --minutes "${2:-7}" --at-once 64 --models weightless:7B:3B \
        --server-flags "--sampling-backend pytorch" --out "$OUT/soak.jsonl" 2>&1 |
        grep -v Warning | cut -c 1-3000 | tail -n 40
    python3 benchmarks/gpu_sessions/allocated/least.py "$ALLOCATED_LOG" | tee "$OUT/allocated.txt"
    ;;
admission)
    prepare && prepare_old "$2" && about
    shift 2
    step admission
    timeout 580 python3 -m benchmarks.admission_cost --old-path "$HOME/old" --models weightless:3B:3B --starts "${STARTS:-1}" --pairs "${PAIRS:-100}" \
        --pin --server-flags "--attention-backend fa3 --max-total-tokens 40000 --mem-fraction-static 0.6" --kinds "$@" \
        --out "$OUT/admission.jsonl" 2>&1 | grep -v Warning | tail -n 40
    ;;
*)
    grep '^#' "$0"
    exit 2
    ;;
esac
step end
