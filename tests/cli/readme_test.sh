#!/bin/bash
# Do the commands of the READMEs run as written, and print what they show?
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

for readme in README.md scenarios/course-notes/README.md scenarios/validation/README.md; do
  # Commands of their own, and those in the cells of tables.
  while read -r command; do
    eval "$command" >out 2>&1 || { echo "FAILED in $readme: $command"; cat out; failures=$((failures + 1)); }
  done < <(blocks sh "$2/$readme" | grep '^shardsim '
           grep '^|' "$2/$readme" | grep -o '`shardsim [^`]*`' | tr -d '`' | grep -v '[A-Z][A-Z]' | sort -u)

  # A block of language console is a command and what it prints.
  blocks console "$2/$readme" >expected
  if [ -s expected ]; then
    eval "$(sed -n '1s/^\$ //p' expected)" >out 2>&1
    sed -i 1d expected
    diff expected out || { echo "FAILED in $readme: the output shown"; failures=$((failures + 1)); }
  fi
done

blocks toml "$2/README.md" >scenario.toml
shardsim check scenario.toml >out || { cat out; failures=$((failures + 1)); }

exit $((failures > 0))
