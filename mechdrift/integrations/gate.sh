#!/usr/bin/env bash
# One gate in a pipeline: measures a pair, writes record, reports and the verdict, and ends with pytest's exit code.
# From the environment, never from the text of a script, so that no name of a branch or a model is ever run:
#   BASE, POST       specs                        OUT    folder of record and reports; default: mechdrift-gate
#   PROFILE, TIER    as pytest's options          ARGS   further arguments of pytest, one a line
# Read where they are set: GITHUB_OUTPUT gets `verdict` and `exit-code`, GITHUB_STEP_SUMMARY the table.
set -euo pipefail

if [[ -z ${BASE:-} || -z ${POST:-} ]]; then
    echo "mechdrift: no BASE or no POST; expected a spec in both; set them in the environment" >&2
    exit 4
fi
out=${OUT:-mechdrift-gate}
mkdir -p "$out"
rm -f "$out"/record.* "$out"/report.html "$out"/summary.md "$out"/junit.xml # an older run's would be taken for this one's

arguments=("--base=$BASE" "--post=$POST" --mechdrift-record "$out/record.json")
[[ -z ${PROFILE:-} ]] || arguments+=("--mechdrift-profile=$PROFILE")
[[ -z ${TIER:-} ]] || arguments+=("--mechdrift-tier=$TIER")
while IFS= read -r argument; do
    [[ -z $argument ]] || arguments+=("$argument")
done <<<"${ARGS:-}"

code=0
python -m pytest "${arguments[@]}" || code=$?

# pytest ends with 1 for a drift, and for a test that broke.
drifted='import json, sys
from mechdrift.verdict.failing import fails
record = json.load(open(sys.argv[1]))
sys.exit(not any("drifted" in fails(row, record["settings"]["fail_on"]) for row in record["rows"]))'
case $code in
    0) verdict=held ;;
    6) verdict=undecided ;;
    7) verdict=unmeasurable ;;
    *) verdict=error ;;
esac
if [[ $code == 1 && -e $out/record.json ]] && python -c "$drifted" "$out/record.json"; then
    verdict=drifted
fi

if [[ -e $out/record.json ]]; then
    mechdrift report "$out/record.json" --html "$out/report.html" --markdown "$out/summary.md" --junit "$out/junit.xml" ||
        echo "mechdrift: no report; the record is $out/record.json" >&2
fi
echo "mechdrift: verdict $verdict, exit code $code"
if [[ -n ${GITHUB_OUTPUT:-} ]]; then
    printf 'verdict=%s\nexit-code=%s\n' "$verdict" "$code" >>"$GITHUB_OUTPUT"
fi
if [[ -n ${GITHUB_STEP_SUMMARY:-} && -e $out/summary.md ]]; then
    cat "$out/summary.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"
