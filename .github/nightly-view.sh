#!/usr/bin/env bash
# Put tonight's records beside those of earlier nights, and draw one view of each pair over its nights.
#   nightly-view.sh TONIGHT HISTORY STAMP    TONIGHT/night-PAIR/record.json becomes HISTORY/PAIR/STAMP.json
set -euo pipefail
tonight=$1 history=$2 stamp=$3
code=0
for record in "$tonight"/night-*/record.json; do
    [[ -e $record ]] || continue
    pair=$(basename "$(dirname "$record")")
    pair=${pair#night-}
    mkdir -p "$history/$pair"
    for file in "${record%.json}".*; do # the record, and what lies beside it
        cp "$file" "$history/$pair/$stamp.${file#"${record%.json}".}"
    done
done
for folder in "$history"/*/; do
    [[ -e $folder ]] || continue
    folder=${folder%/}
    mechdrift report "$folder"/*.json --html "$folder.html" --markdown "$folder.md" || code=$?
    if [[ -n ${GITHUB_STEP_SUMMARY:-} && -e $folder.md ]]; then
        cat "$folder.md" >>"$GITHUB_STEP_SUMMARY"
    fi
done
exit "$code"
