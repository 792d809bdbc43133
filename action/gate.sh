# Judges the run, keeps verdict, table and page, and ends as the job should.
set -euo pipefail
mkdir -p "$OUT"
options=(--json "$OUT/gate.json" --junit "$OUT/gate.xml" --markdown "$OUT/gate.md")
if [ -n "$AGAINST" ]; then options+=(--against "$AGAINST"); fi
if [ "$REQUIRE_SLICES" = true ]; then options+=(--require-slices); fi

code=0
niah gate "$RUN" --max-tax "$MAX_TAX" "${options[@]}" || code=$?
if [ "$code" -ne 0 ] && [ "$code" -ne 1 ] && [ "$code" -ne 3 ]; then exit "$code"; fi
verdict=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["verdict"])' "$OUT/gate.json")
echo "verdict=$verdict" >>"$GITHUB_OUTPUT"
cat "$OUT/gate.md" >>"$GITHUB_STEP_SUMMARY"
niah report "$RUN" --out "$OUT/report.html"
echo "report=$OUT/report.html" >>"$GITHUB_OUTPUT"

case "$verdict" in
undefined)
    echo "::error::niah gate: the baseline recalls too little to judge a loss by; see the summary"
    ;;
inconclusive)
    # Too few pairs may pass; questions without an answer, of a server that was down, may not.
    if python -c '
import json, sys

checks = json.load(open(sys.argv[1]))["checks"]
sys.exit(not any(check["decides"] and check["errors_decide"] for check in checks))
' "$OUT/gate.json"; then
        echo "::error::niah gate: errors or missing answers could turn the verdict; see the summary"
    elif [ "$INCONCLUSIVE" = pass ]; then
        echo "::warning::niah gate is inconclusive; the summary says how many pairs it would take"
        exit 0
    fi
    ;;
esac
exit "$code"
