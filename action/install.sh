# Installs niah from the action's own checkout, with the versions it was tested with.
set -euo pipefail
if [ -z "$EXTRAS" ] && [ -n "$CONFIG" ]; then EXTRAS=run; fi
read -r -d '' -a more <<<"$PIP_ARGS" || true # of all lines
python -m pip install --quiet -c "$ACTION/constraints.txt" ${more[@]+"${more[@]}"} \
    "$ACTION${EXTRAS:+[$EXTRAS]}"
