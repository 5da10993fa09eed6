#!/bin/sh
# Runs every workload and writes FOLDER/WORKLOAD.json and FOLDER/WORKLOAD.svg; options go to run.py.
#
#     benchmarks/run_all.sh FOLDER [OPTION]...
set -eu
folder=$1
shift
for workload in benchmarks/*/workload.py; do
    name=$(basename "$(dirname "$workload")")
    echo "== $name"
    python3 benchmarks/run.py "$name" --json "$folder/$name.json" --chart "$folder/$name.svg" "$@"
done
