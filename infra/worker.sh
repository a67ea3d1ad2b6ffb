#!/bin/sh
# Makes the work pool and the deployments what this release says, then serves the pool.
# TSP_POOL_TYPE: process (runs on this machine) or kubernetes (a Job for each run, of TSP_IMAGE).
set -eu
cd "$(dirname "$0")/.."
mkdir -p "${TMPDIR:-/tmp}" # Python takes another folder when this one is missing
type="${TSP_POOL_TYPE:-process}"
if [ "$type" = kubernetes ]; then
    template="$(mktemp)"
    sed "s|\"default\": \"tsp:cuda\"|\"default\": \"${TSP_IMAGE:-tsp:cuda}\"|" \
        infra/kubernetes/base-job-template.json > "$template"
    set -- --base-job-template "$template"
else
    set --
fi
prefect work-pool create --overwrite --type "$type" "$@" tsp
python infra/deploy.py
# A run that is killed together with this worker would stay `Running`, and the next wait for it.
tsp automations apply || echo "worker.sh: no automation marks lost runs; see the lines above" >&2
exec python infra/serve.py prefect worker start --pool tsp --type "$type" --with-healthcheck
