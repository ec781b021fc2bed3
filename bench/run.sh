#!/usr/bin/env bash
# Measures the engine on the fixed workloads and writes a Markdown table to stdout and build/bench/results.md.
# docs/benchmarks.md says what each row means.
#
#   MODEL=demo REPEATS=3 PAGEMILL=build/release/src/cli/pagemill bench/run.sh
#   PAGEMILL_DATA=requests.jsonl   also runs these requests (lines with prompt_token_ids and output_len)
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 bench/run.py \
  --pagemill "${PAGEMILL:-build/release/src/cli/pagemill}" \
  --model "${MODEL:-demo}" \
  --repeats "${REPEATS:-3}" \
  --output "${OUTPUT:-build/bench/results.md}" \
  ${PAGEMILL_DATA:+--workload "$PAGEMILL_DATA"} "$@"
