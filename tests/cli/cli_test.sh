#!/bin/bash
# Does the command line do what its help says: outputs, exit codes, files whole or not at all?
#   usage: cli_test.sh path/to/shardsim path/to/source
set -u
shardsim=$1
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

# expect CODE 'text in stdout or stderr' command...
expect() {
  local code=$1 text=$2
  shift 2
  "$@" >out 2>err
  local got=$?
  if [ $got -ne "$code" ]; then
    echo "FAILED: $* exits with $got, not $code"; cat err; failures=$((failures + 1))
  elif [ -n "$text" ] && ! grep -qF -- "$text" out err; then
    echo "FAILED: $* does not say: $text"; head -5 out err; failures=$((failures + 1))
  fi
}
check() {
  if ! eval "$1"; then echo "FAILED: $1"; failures=$((failures + 1)); fi
}

expect 0 'shardsim run --model t5-11b' "$shardsim"
expect 0 'simulate one scenario' "$shardsim" --help
expect 0 'shardsim 0.1.0' "$shardsim" --version
small=(--model t5-small --topology a100-80gb-roce-2000 --gpus 16 --strategy fsdp --micro-batch 2)
expect 0 'model TFLOPS' "$shardsim" run "${small[@]}"
expect 0 '"schema": "shardsim.run/1"' "$shardsim" run "${small[@]}" --format json
expect 0 'simulated.step_time_s' "$shardsim" run "${small[@]}" --format csv
expect 0 'critical path of step' "$shardsim" run "${small[@]}" --explain
expect 0 'longest segments' "$shardsim" run "${small[@]}" --explain path
expect 0 'MFU' "$shardsim" run --explain mfu "${small[@]}"
expect 0 '"critical_path": [' "$shardsim" run "${small[@]}" --explain --format json
expect 2 '--explain speed: path or mfu is expected' "$shardsim" run "${small[@]}" --explain speed
expect 0 'jitter' "$shardsim" run "${small[@]}" --set jitter.step_sigma=0.01
expect 0 'none is folded' "$shardsim" run "${small[@]}" --set jitter.step_sigma=0.01 --set jitter.mode=sampled
expect 0 'OUT OF MEMORY' "$shardsim" run --model t5-11b --topology a100-80gb-roce-2000 --gpus 512 --strategy ddp
expect 3 'OUT OF MEMORY' "$shardsim" run --model t5-11b --topology a100-80gb-roce-2000 --gpus 512 --strategy ddp --fail-on-oom
expect 0 'default: full sharding' "$shardsim" check "${small[@]}"
expect 0 '"schema": "shardsim.check/1"' "$shardsim" check "${small[@]}" --format json
expect 0 'first of 24 runs of the sweep' "$shardsim" check fsdp-paper/model-scale
expect 0 'hardware  tokens/s' "$shardsim" sweep fsdp-paper/rate-limiter
expect 0 'weak scaling' "$shardsim" sweep fsdp-paper/rate-limiter
expect 0 'weak scaling' "$shardsim" sweep fsdp-paper/rate-limiter -j 3
expect 0 'a100-80gb-roce-2000' "$shardsim" show topologies
expect 0 't5-2.28b' "$shardsim" show models
expect 0 'eager-2022' "$shardsim" show stacks
expect 0 'fsdp-paper/model-scale' "$shardsim" show scenarios
expect 0 'nvswitch' "$shardsim" show topology dgx-a100-80gb
expect 0 '11307321344' "$shardsim" show model t5-11b
expect 0 '"$schema"' "$shardsim" schema run

# Answers about memory.
ddp=(--model t5-11b --topology a100-80gb-roce-2000 --gpus 512 --strategy ddp --micro-batch 8 --checkpointing full)
expect 0 'kind = fsdp' "$shardsim" run "${ddp[@]}"
expect 0 '"strategy.kind": "fsdp"' "$shardsim" run "${ddp[@]}" --format json
expect 0 '"would_fit": null' "$shardsim" run "${ddp[@]}" --format json --no-advice
expect 0 'no number of GPUs up to 64 fits' "$shardsim" limit "${ddp[@]}" --min cluster.gpus --up-to 64
expect 0 'largest training.micro_batch that fits' "$shardsim" limit --model gpt2-xl --topology single-gpu --max training.micro_batch
expect 0 'shardsim.limit/1' "$shardsim" limit --model gpt2-xl --topology single-gpu --max model.layers --step 8 --format json
expect 0 'simulated.fits' "$shardsim" limit --model gpt2-xl --topology single-gpu --max training.micro_batch --format csv
over='training.micro_batch=1..4 x2,training.sequence_length=[1024,2048]'
mpt=(--model mpt-7b --topology dgx-a100-40gb --gpus 16)
expect 0 'largest training.sequence_length that fits' "$shardsim" frontier "${mpt[@]}" --over "$over"
expect 0 'shardsim.frontier/1' "$shardsim" frontier "${mpt[@]}" --over "$over" --format json
expect 0 'simulated.fits' "$shardsim" frontier "${mpt[@]}" --over "$over" --format csv
expect 0 '"$schema"' "$shardsim" schema frontier
expect 0 '"$schema"' "$shardsim" schema limit

# Collectives, as nccl-tests prints them.
coll=(--topology dgx-a100-80gb --gpus 8,16 --sizes 1M..8M)
expect 0 '# Avg bus bandwidth    : ' "$shardsim" collective "${coll[@]}"
check '[ "$(grep -vc ^# out)" -eq 8 ]'
expect 0 '"schema": "shardsim.collective/1"' "$shardsim" collective "${coll[@]}" --kind all-gather --format json
expect 0 'topology,stack,kind' "$shardsim" collective "${coll[@]}" --axis shard --sharding-factor 8 --format csv
expect 0 '"$schema"' "$shardsim" schema collective

# Folding changes nothing but the engine's statistics.
strip() { grep -vE '"(events|allocator_calls|wall_s|rank_classes|folded)"'; }
"$shardsim" run "${small[@]}" --format json | strip >folded
"$shardsim" run "${small[@]}" --format json --no-fold | strip >unfolded
check 'cmp -s folded unfolded'

# The memory timeline, by the ending of its file.
expect 0 'model TFLOPS' "$shardsim" run "${small[@]}" --memory-timeline memory.csv
check 'head -1 memory.csv | grep -q "^step,time_ps,allocated_bytes,"'
expect 0 '' "$shardsim" run "${small[@]}" --memory-timeline memory.json
check 'grep -q shardsim.memory-timeline/1 memory.json'
expect 0 'shardsim.memory-timeline/1' "$shardsim" schema memory-timeline

# Files appear whole or not at all.
expect 0 '' "$shardsim" run "${small[@]}" --format json -o result.json
check 'grep -q shardsim.run/1 result.json'
check '[ "$(ls | grep -c tmp)" -eq 0 ]'
expect 2 'cannot be written' "$shardsim" run "${small[@]}" -o /nonexistent/folder/x.json
expect 0 '' "$shardsim" show topology dgx1-v100-32gb --graphviz graph.dot
check 'grep -q "graph" graph.dot'
check 'command -v dot >/dev/null && dot -Tsvg graph.dot >graph.svg || ! command -v dot >/dev/null'

# Bad input: one line on standard error, nothing on standard output, exit code 2.
bad() {
  local text=$1
  shift
  expect 2 "$text" "$@"
  check '[ ! -s out ]'
  check '[ "$(wc -l <err)" -eq 1 ]'
}
bad 'a file that ends in .csv or .json is expected' "$shardsim" run "${small[@]}" --memory-timeline memory.txt
bad 'unknown model "t5-12b"; did you mean "t5-11b"?' "$shardsim" run --model t5-12b --topology single-gpu
bad 'cluster.gpus is 0' "$shardsim" run --model gpt2 --topology dgx-a100-80gb --gpus 0
bad 'training.micro_batch is -1' "$shardsim" run --model gpt2 --topology dgx-a100-80gb --gpus 8 --micro-batch=-1
bad 'training.dropout is nan' "$shardsim" run --model gpt2 --topology dgx-a100-80gb --gpus 8 --set training.dropout=nan
bad 'the scenario needs a "model"' "$shardsim" run
bad 'is a sweep of 24 runs, the first with' "$shardsim" run fsdp-paper/model-scale
bad 'no scenario of that name; did you mean "fsdp-paper/memory"?' "$shardsim" sweep fsdp-paper/memry
bad 'The following argument was not expected: --modle' "$shardsim" run --modle gpt2
bad 'not in {table,json,csv}' "$shardsim" run "${small[@]}" --format xml
bad 'is a directory, not a file' "$shardsim" run .
: >empty.toml
bad 'empty.toml:1:1: is empty' "$shardsim" run empty.toml
printf 'model = "gpt2"\ntopology = "single-gpu"\n[trainng]\n' >typo.toml
bad 'typo.toml:3:1: unknown key "trainng"; did you mean "training"?' "$shardsim" check typo.toml
printf 'model = "gpt2"\ntopology = "single-gpu"\n[training]\nmicro_batc = 2\n' >typo.toml
bad 'typo.toml:4:14: unknown key "micro_batc" in [training]; did you mean "micro_batch"?' "$shardsim" check typo.toml
bad '--max training.micro_batc: unknown key "micro_batc" in [training]; did you mean "micro_batch"?' "$shardsim" limit "${small[@]}" --max training.micro_batc
bad 'training.dropout is not an integer' "$shardsim" limit "${small[@]}" --max training.dropout
bad 'only the fewest GPUs are searched: --min cluster.gpus' "$shardsim" limit "${small[@]}" --min training.micro_batch
bad 'needs either --max KEY or --min cluster.gpus' "$shardsim" limit "${small[@]}" --max training.micro_batch --min cluster.gpus
bad 'needs either --max KEY or --min cluster.gpus' "$shardsim" limit "${small[@]}"
bad '--step 2: goes with --max' "$shardsim" limit "${small[@]}" --min cluster.gpus --step 2
bad 'needs a --topology' "$shardsim" collective
bad 'unknown; did you mean "all_gather"?' "$shardsim" collective "${coll[@]}" --kind all_gater
bad '12 GPUs do not fill nodes of 8' "$shardsim" collective --topology dgx-a100-80gb --gpus 12
bad '"1X" is not a size' "$shardsim" collective --topology dgx-a100-80gb --sizes 1X
bad 'needs two keys: --over' "$shardsim" frontier "${small[@]}"
bad 'did you mean "micro_batch"?' "$shardsim" frontier "${small[@]}" --over training.micro_batc,training.sequence_length
bad 'has no values' "$shardsim" frontier "${small[@]}" --over 'training.micro_batch=[],training.sequence_length'
bad '"8..4" is not a range' "$shardsim" frontier "${small[@]}" --over 'training.micro_batch=8..4,training.sequence_length'
truncate -s 100M large.toml
bad 'has 100 MiB' "$shardsim" run large.toml

# Tables of measured runs.
runs='id,model,topology,cluster.gpus,strategy.kind,measured.tokens_per_s_per_gpu'
printf '%s\na,gpt2,dgx-a100-40gb,8,ddp,60000\nb,gpt2,dgx-a100-40gb,8,ddp,200 tok/s\nc,gpt2,dgx-a100-40gb,4,ddp,50000\n' "$runs" >runs.csv
expect 0 '1 rows could not be simulated; each says why' "$shardsim" validate runs.csv
expect 0 'runs.csv:3:28: column "measured.tokens_per_s_per_gpu" holds "200 tok/s"' "$shardsim" validate runs.csv
expect 0 'shardsim.validate/1' "$shardsim" validate runs.csv --format json
expect 0 'id,metric,predicted' "$shardsim" validate runs.csv --format csv
bad 'runs.toml: is a scenario; `validate` reads a CSV table of measured runs. Was `shardsim check runs.toml` meant?' "$shardsim" validate runs.toml
bad 'no such file, and no table of that name' "$shardsim" validate none.csv
bad 'needs a CSV table of measured runs' "$shardsim" validate
printf '%s,gpus\n' "$runs" >wrong.csv
bad 'wrong.csv:1:76: unknown column "gpus"' "$shardsim" validate wrong.csv
if command -v taskset >/dev/null; then
  "$shardsim" validate runs.csv --format json >many
  taskset -c "$(taskset -cp $$ | grep -oE '[0-9]+' | tail -1)" "$shardsim" validate runs.csv --format json >one
  check 'cmp -s many one'
fi

# Overlays, and calibrations that write them.
printf '[gpu.a100-sxm-40gb]\ntraining_context = 0.5\n' >slow.toml
expect 0 'slow.toml:2:20, in place of' "$shardsim" check --model gpt2 --topology dgx-a100-40gb --gpus 8 --overlay slow.toml
expect 0 'tokens_per_s_per_gpu' "$shardsim" validate runs.csv --overlay slow.toml
expect 0 'gpu.a100-sxm-40gb.training_context' "$shardsim" calibrate --list
expect 0 'mean |error| of the step time' "$shardsim" calibrate runs.csv --free gpu.a100-sxm-40gb.training_context -o fitted.toml
check 'grep -q "^\[gpu.a100-sxm-40gb\]" fitted.toml'
expect 0 'fitted.toml:' "$shardsim" check --model gpt2 --topology dgx-a100-40gb --gpus 8 --overlay fitted.toml
expect 0 'shardsim.calibrate/1' "$shardsim" calibrate runs.csv --free gpu.a100-sxm-40gb.training_context --format json
bad 'did you mean "gpu.a100-sxm-40gb.training_context"?' "$shardsim" calibrate runs.csv --free gpu.a100-sxm-40gb.training_contxt
bad 'can tell none of these constants' "$shardsim" calibrate runs.csv --free gpu.v100-sxm-32gb.training_context
bad 'needs --free KEY,KEY' "$shardsim" calibrate runs.csv
bad 'slow2.toml' "$shardsim" run --model gpt2 --topology dgx-a100-40gb --gpus 8 --overlay slow2.toml

# How sure a run is.
expect 0 '90% interval' "$shardsim" run "${small[@]}"
expect 0 'step_time_low_s' "$shardsim" run "${small[@]}" --format json
expect 0 'log_error' "$shardsim" validate runs.csv --residuals

# The user's own files win over those that came with the program.
mkdir models
sed 's/^layers = 12/layers = 2/' "$source/models/gpt2.toml" >models/gpt2.toml
expect 0 'layers          2' "$shardsim" show model gpt2

[ $failures -eq 0 ] && echo "all command-line tests passed"
exit $((failures > 0))
