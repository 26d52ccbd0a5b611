#!/bin/sh
# Train on one file, evaluate on another that training never saw, and write its predictions.
#
#     examples/demo.sh OUT_FOLDER TRAIN_FILE TEST_FILE TARGET_COLUMN [OPTIONS OF TRAIN]
set -eu
out=$1 train=$2 test=$3 target=$4
shift 4
mkdir -p "$out"

say() { printf '\n== %s\n' "$1"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "1. Train on $(basename "$train"): one weight vector and one bias for each class"
run fastsoftmax train "$train" --target "$target" -o "$out/model.safetensors" "$@"

say "2. Evaluate on $(basename "$test"), whose rows training never saw"
run fastsoftmax evaluate "$out/model.safetensors" "$test"

say "3. Write a class and all probabilities for each of its rows, beside the true class"
run fastsoftmax predict "$out/model.safetensors" "$test" -o "$out/predictions.parquet" \
  --proba --keep "$target"

say "Done: the model is $out/model.safetensors, the predictions are $out/predictions.parquet"
