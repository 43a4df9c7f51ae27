#!/bin/bash
# Do the README's commands run as written, and print what it shows?
#   usage: readme_test.sh path/to/shardsim path/to/source
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" && ln -s "$1" "$work/bin/shardsim"
PATH=$work/bin:$PATH
cd "$work" || exit 1
failures=0
fence='```'

# The lines of every block of a language, such as ```sh.
blocks() { sed -n "/^$fence$1\$/,/^$fence\$/p" "$2" | grep -v "^$fence"; }

while read -r command; do
  eval "$command" >out 2>&1 || { echo "FAILED: $command"; cat out; failures=$((failures + 1)); }
done < <(blocks sh "$2/README.md" | grep '^shardsim ')

blocks console "$2/README.md" >expected
eval "$(sed -n '1s/^\$ //p' expected)" >out 2>&1
sed -i 1d expected
diff expected out || failures=$((failures + 1))

blocks toml "$2/README.md" >scenario.toml
shardsim check scenario.toml >out || { cat out; failures=$((failures + 1)); }

exit $((failures > 0))
