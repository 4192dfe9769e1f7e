#!/bin/sh
# Judge a checkpoint before it is committed or copied to where releases lie; needs no CI system.
#
#   examples/ci/check_checkpoint.sh MODEL SOURCE TARGET BASELINE.json [options of gcaudit score]
#
# Exit code: gcaudit's own (0 passed, 1 worse than the baseline or a rule violated, 2 wrong request, 3 not completed). The first run makes the
# baseline. RULES names the file of rules; where no rule is a regression, one of more than 2% is forbidden.
set -eu
if [ $# -lt 4 ]; then
    sed -n '2,7p' "$0" | cut -c3- >&2
    exit 2
fi
model=$1 source=$2 target=$3 baseline=$4
shift 4
if [ ! -e "$baseline" ]; then
    gcaudit score "$model" --source "$source" --target "$target" --save-evidence -o "$baseline" "$@"
    echo "made the baseline $baseline; commit it with ${baseline%.json}.evidence.npz" >&2
    exit 0
fi
if [ -n "${RULES:-}" ]; then set -- --gate "$RULES" "$@"; fi
exec gcaudit score "$model" --source "$source" --target "$target" --baseline "$baseline" "$@"
