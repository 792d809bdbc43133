# Installs niah from the action's own checkout, with the versions it was tested with.
set -euo pipefail
if [ -z "$EXTRAS" ] && [ -n "$CONFIG" ]; then EXTRAS=run; fi
read -r -a more <<<"$PIP_ARGS"
python -m pip install --quiet -c "$ACTION/constraints.txt" "${more[@]}" "$ACTION${EXTRAS:+[$EXTRAS]}"
