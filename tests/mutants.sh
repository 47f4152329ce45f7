#!/usr/bin/env bash
# Mutation run over the derivatives: a seeded sample of mutants of src/ops and src/autograd, one by one against the
# integration tests. Needs cargo-mutants 27 and jq. Results are appended to a file, and what is in it is not run
# again, so that a run may be interrupted. Two checkouts can share a sample: each takes every second mutant, into a
# file of its own, if they are given the parts 0/2 and 1/2.
#
#   tests/mutants.sh [results file] [sample size] [seed] [part]
set -euo pipefail
cd "$(dirname "$0")/.."
results=$(realpath -m "${1:-target/mutants/results.tsv}")
size=${2:-200}
seed=${3:-0}
part=${4:-0/1}
work=$(dirname "$results")
mkdir -p "$work"
touch "$results"

# Formatting for people is not what these tests are about.
scope=(--file 'src/ops/**' --file 'src/autograd/**' --exclude-re 'fmt::(Debug|Display)')
cargo mutants --list --json "${scope[@]}" >"$work/all.json"
total=$(jq length "$work/all.json")

# Index and name, in the same order for the same seed: numbers of a Lehmer generator (Park & Miller 1988), exact in
# double precision.
jq -r 'to_entries[] | "\(.key)\t\(.value.name)"' "$work/all.json" |
    awk -v x="$((seed * 2 + 1))" '{ for (i = 0; i < 3; i++) x = x * 48271 % 2147483647; print x "\t" $0 }' |
    sort -n | awk -v size="$size" -v part="${part%/*}" -v parts="${part#*/}" 'NR <= size && NR % parts == part' |
    cut -f2- >"$work/sample.tsv"

# What makes a mutant quick: only dependencies are optimised, one test target is built, without the binary, and what
# the quick tests catch is not shown to the slow ones.
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=none CARGO_TARGET_DIR="$work/build"
build=(--no-default-features --cargo-arg=--config --cargo-arg='profile.dev.package."*".opt-level=1'
    --cargo-arg=--test --cargo-arg=it)
stages=(
    "checker:: ops::derivatives ops::single every_op refusals:: methods:: second_order:: views:: torch:: ledger:: products_do_not"
    "large::"
    "flipped dense_hessian"
)
# The mutant of this index against the tests of a stage.
try() {
    rm -rf "$work/mutants.out"
    # As many shards as mutants: the one with this index.
    # shellcheck disable=SC2086 # a stage is a list of names
    cargo mutants "${scope[@]}" --shard "$1/$total" --sharding round-robin --in-place --baseline skip --output "$work" \
        --timeout 120 --build-timeout 600 --colors never "${build[@]}" -- -- $2 >"$work/last.log" 2>&1 || true
    for outcome in caught missed timeout unviable; do
        if [ -s "$work/mutants.out/$outcome.txt" ]; then echo "$outcome" && return; fi
    done
    echo "error: see $work/last.log" >&2
    return 1
}
try_all() {
    local outcome
    for stage in "${stages[@]}"; do
        outcome=$(try "$1" "$stage") || return 1
        if [ "$outcome" != missed ]; then break; fi
    done
    echo "$outcome"
}

if ! git diff --quiet -- src; then
    echo "src has uncommitted changes, and mutants are made in place" >&2
    exit 2
fi
while IFS=$'\t' read -r index name; do
    if ! cut -f2 "$results" | grep -qxF -- "$name"; then
        outcome=$(try_all "$index" </dev/null) && printf '%s\t%s\n' "$outcome" "$name" | tee -a "$results"
    fi
done <"$work/sample.tsv"

count() { cut -f1 "$results" | grep -cxE "$1" || true; }
killed=$(count 'caught|timeout')
viable=$((killed + $(count missed)))
echo "$killed of $viable viable mutants killed"
grep '^missed' "$results" || true
