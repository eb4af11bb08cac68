#!/usr/bin/env bash
# One gate in a pipeline: measures a pair, writes record, reports and the verdict, and ends with 0 for gates that held.
# From the environment, never from the text of a script, so that no name of a branch or a model is ever run:
#   BASE, POST       specs                        OUT    folder of record and reports; default: mechdrift-gate
#   PROFILE, TIER    as pytest's options          ARGS   further arguments of pytest, one a line
# Read where they are set: GITHUB_OUTPUT gets `verdict` and `exit-code`, GITHUB_STEP_SUMMARY the table.
# -P: no module of the folder that it is started in stands in for ours.
exec python -P -m mechdrift.integrations.gate
