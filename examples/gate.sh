#!/usr/bin/env bash
# The gate in any CI: ask, judge, keep the page.
#   examples/gate.sh CONFIG RUN MAX_TAX [REFERENCE]
# With REFERENCE, each arm is also compared with itself in that earlier run.
# Ends as the first gate that did not pass: 1 failed, 3 too few pairs; 2 a wrong call.
set -euo pipefail
config=$1 run=$2 max_tax=$3 reference=${4:-}

# Exit code 1 says that some questions ended in an error. The gate counts them.
code=0
niah run "$config" --out "$run" || code=$?
if [ "$code" -gt 1 ]; then exit "$code"; fi

verdict=0
judge() {
    local name=$1 code=0
    shift
    niah gate "$run" --max-tax "$max_tax" "$@" \
        --json "$run/$name.json" --junit "$run/$name.xml" --markdown "$run/$name.md" || code=$?
    if [ "$code" -eq 2 ]; then exit 2; fi
    if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$run/$name.md" >>"$GITHUB_STEP_SUMMARY"; fi
    if [ "$verdict" -eq 0 ]; then verdict=$code; fi
}

judge gate
if [ -n "$reference" ]; then judge gate-against --against "$reference"; fi
niah report "$run" --out "$run/report.html"
exit "$verdict"
