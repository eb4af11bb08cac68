#!/usr/bin/env bash
# Put tonight's records beside those of earlier nights, and draw one view of each pair over its nights.
#   nightly-view.sh TONIGHT HISTORY STAMP [PAIR...]    TONIGHT/night-PAIR/record.json becomes HISTORY/PAIR/STAMP.json
# A PAIR, or one that HISTORY has, without a record tonight becomes a hole. Ends with the worst pair's exit code.
exec python -P -m mechdrift.integrations.nights "$@"
