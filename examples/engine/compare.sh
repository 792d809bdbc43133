#!/usr/bin/env bash
# Starts two servers of llama.cpp, one with a cache of 16 bits and one of 8, asks both, judges.
#   examples/engine/compare.sh WEIGHTS.gguf RUN MAX_TAX
# Ends as the gate does: 0 passes, 1 the loss is larger, 3 too few pairs to tell; 2 a wrong call.
# For another engine replace the two lines that start servers, and what sweep.yaml says of them.
set -euo pipefail
here=$(dirname "$0")
weights=$1 run=$2 max_tax=$3

mkdir -p runs/engine
ln -sf "$(realpath "$weights")" runs/engine/model.gguf

start() {
    "${PYTHON:-python}" "$here/llama_server.py" runs/engine/model.gguf --port "$1" --cache "$2" \
        --threads "${THREADS:-2}" >"runs/engine/$1.log" 2>&1 &
}
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
start 18091 f16
start 18092 q8_0

for port in 18091 18092; do
    for _ in $(seq 240); do
        if curl -sf --max-time 2 "http://127.0.0.1:$port/health" >/dev/null; then continue 2; fi
        sleep 0.5
    done
    echo "no server answers at port $port: see runs/engine/$port.log" >&2
    exit 2
done

"$here/../gate.sh" "$here/sweep.yaml" "$run" "$max_tax"
