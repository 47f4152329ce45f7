#!/usr/bin/env bash
# Mutation run over the derivatives: a seeded sample of mutants of src/ops and src/autograd, one by one against the
# integration tests. Needs cargo-mutants 27 and jq. Results are appended to a file, and what is in it is not run
# again, so that a run may be interrupted.
#
#   tests/mutants.sh [results file] [sample size] [seed]
set -euo pipefail
cd "$(dirname "$0")/.."
results=$(realpath -m "${1:-target/mutants/results.tsv}")
size=${2:-200}
seed=${3:-0}
work=$(dirname "$results")
mkdir -p "$work"
touch "$results"

# The same order for the same seed: sorted by a hash of seed and name.
ranked() {
    jq -r '.[].name' | while IFS= read -r name; do
        printf '%s\t%s\n' "$(printf '%s %s' "$seed" "$name" | sha256sum | cut -c1-16)" "$name"
    done | sort | head -n "$size" | cut -f2
}
# Formatting for people is not what these tests are about.
scope=(--file 'src/ops/**' --file 'src/autograd/**' --exclude-re 'fmt::(Debug|Display)')
cargo mutants --list --json "${scope[@]}" | ranked >"$work/sample.txt"

# Regular expressions that match a mutant's name and nothing else.
exactly() { printf '%s' "^$(printf '%s' "$1" | sed 's/[][\.*^$+?(){}|/-]/\\&/g')\$"; }

# A little optimisation is what makes a mutant quick: one crate is compiled again, and the tests take seconds.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=none CARGO_TARGET_DIR="$work/build"
try() {
    rm -rf "$work/mutants.out"
    cargo mutants "${scope[@]}" --re "$(exactly "$1")" --in-place --baseline skip --output "$work" \
        --timeout 300 --build-timeout 600 --colors never -- --test it >"$work/last.log" 2>&1 || true
    for outcome in caught missed timeout unviable; do
        if [ -s "$work/mutants.out/$outcome.txt" ]; then echo "$outcome" && return; fi
    done
    echo "error: see $work/last.log" >&2
    return 1
}

if ! git diff --quiet -- src; then
    echo "src has uncommitted changes, and mutants are made in place" >&2
    exit 2
fi
while IFS= read -r name; do
    if ! cut -f2 "$results" | grep -qxF -- "$name"; then
        outcome=$(try "$name") && printf '%s\t%s\n' "$outcome" "$name" | tee -a "$results"
    fi
done <"$work/sample.txt"

count() { cut -f1 "$results" | grep -cxE "$1" || true; }
killed=$(count 'caught|timeout')
viable=$((killed + $(count missed)))
echo "$killed of $viable viable mutants killed"
grep '^missed' "$results" || true
