#!/bin/bash
# Does an installed program find its models, topologies and scenarios from anywhere, with an empty environment?
#   usage: install_test.sh path/to/cmake path/to/build
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1" --install "$2" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/moved" # nothing may remember where it was installed
mkdir "$work/elsewhere"
cd "$work/elsewhere"
env -i "$work/moved/bin/shardsim" show scenarios | grep -q fsdp-paper/model-scale
env -i "$work/moved/bin/shardsim" run --model gpt2 --topology dgx-a100-80gb --gpus 8 | grep -q 'model TFLOPS'
env -i "$work/moved/bin/shardsim" sweep fsdp-paper/rate-limiter | grep -q 'weak scaling'
env -i "$work/moved/bin/shardsim" check --model gpt2 --topology single-gpu | grep -q "$work/moved/share/shardsim/models/gpt2.toml"
