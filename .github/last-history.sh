#!/usr/bin/env bash
# Bring the newest history that this repository's own branch left, into a folder; a first night has none.
# GH_TOKEN, GITHUB_REPOSITORY and BRANCH are read from the environment. An artifact of a fork's pull request is never taken.
set -euo pipefail
folder=$1
mkdir -p "$folder"
own='[.artifacts[] | select((.expired | not) and .workflow_run.head_branch == env.BRANCH
      and .workflow_run.head_repository_id == .workflow_run.repository_id)][0].workflow_run.id // empty'
run=$(gh api "repos/$GITHUB_REPOSITORY/actions/artifacts?name=mechdrift-history&per_page=100" --jq "$own")
if [[ -z $run ]]; then
    echo "mechdrift: no history yet"
    exit 0
fi
gh run download "$run" --repo "$GITHUB_REPOSITORY" --name mechdrift-history --dir "$folder"
