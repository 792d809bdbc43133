# Where pip keeps what it downloads, and a key that changes when what is installed does.
set -euo pipefail
folder=$(python -m pip cache dir)
key=$( (cat "$ACTION/constraints.txt"; echo "$EXTRAS ${CONFIG:+run} $PIP_ARGS") | sha256sum | cut -c 1-16)
{
    echo "folder=$folder"
    echo "key=$key"
} >>"$GITHUB_OUTPUT"
