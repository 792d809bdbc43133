# Asks the questions. Some that ended in an error (exit code 1) are the gate's to judge.
set -euo pipefail
code=0
niah run "$CONFIG" --out "$RUN" || code=$?
if [ "$code" -eq 1 ]; then
    echo "::warning::niah run: some questions ended in an error; the gate counts them as unanswered"
elif [ "$code" -ne 0 ]; then
    exit "$code"
fi
