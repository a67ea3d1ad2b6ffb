#!/bin/sh
# Makes the work pool and the deployments what this release says, then serves the pool.
# TSP_POOL_TYPE: process (runs on this machine) or kubernetes (a Job for each run).
set -eu
cd "$(dirname "$0")/.."
type="${TSP_POOL_TYPE:-process}"
if [ "$type" = kubernetes ]; then
    set -- --base-job-template infra/kubernetes/base-job-template.json
else
    set --
fi
prefect work-pool create --overwrite --type "$type" "$@" tsp
prefect --no-prompt deploy --all
exec prefect worker start --pool tsp --type "$type" --with-healthcheck
