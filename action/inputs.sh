# Refuses a wrong input before anything is installed or asked.
set -euo pipefail

one_of() {
    local name=$1 value=$2
    shift 2
    for choice in "$@"; do if [ "$value" = "$choice" ]; then return; fi; done
    echo "::error::$name is '$value'; it should be one of: $*"
    exit 2
}

one_of require-slices "$REQUIRE_SLICES" true false
one_of inconclusive "$INCONCLUSIVE" fail pass
if ! [[ "$EXTRAS" =~ ^([a-z]+(,[a-z]+)*)?$ ]]; then
    echo "::error::extras is '$EXTRAS'; it should be names separated by commas, such as hf,servers"
    exit 2
fi
if ! [[ "$MAX_TAX" =~ ^(0|0?\.[0-9]+)$ ]]; then
    echo "::error::max-tax is '$MAX_TAX'; it should be a share below 1, such as 0.02 for two points"
    exit 2
fi
