#!/usr/bin/env bash
# All that a card is to show, in less than eight minutes, without building anything there: op suite, a smoke training
# run, products, bandwidth and steps, beside PyTorch where it is installed. Writes a dated file and prints it.
#
#   on the machine that builds:   benches/gpu.sh pack DIR        builds, and puts the three programs into DIR
#   on the machine with the card: benches/gpu.sh run DIR [NAME]  NAME is part of a device's name; default: the best GPU
set -euo pipefail
cd "$(dirname "$0")/.."

pack() {
    mkdir -p "$1"
    cargo build --release --locked
    cp target/release/eckart "$1/"
    for bench in gpu gpu_step; do
        built=$(cargo build --release --locked --bench "$bench" --message-format json |
            grep '"kind":\["bench"\]' | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
        cp "$built" "$1/$bench"
    done
}

section() { printf '\n== %s\n' "$1"; }

run() {
    local programs=$1 device=${2:-gpu}
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    export ECKART_DEVICE=$device
    date -u '+%Y-%m-%d %H:%M UTC'
    uname -sm
    "$programs/eckart" devices
    section "check: every op against double precision"
    "$programs/eckart" check --device "$device"
    train() {
        "$programs/eckart" train --device "$device" --steps 100 --eval-every 100 --save-every 100 --batch 8 --context 64 \
            --out "$work/$1" --json "${@:2}"
    }
    section "training"
    train first | grep -E '"(val_loss|tokens_per_second|wall_seconds|total)"'
    section "again, with compiled kernels where the driver keeps them, and watching every kernel"
    train second --profile 2>&1 | grep -E '^(kernel|[a-z_ ]+ (forward|backward|tangent|update)|all else|[a-z ]+ [0-9]+$)'
    section "products"
    "$programs/gpu"
    section "bandwidth and steps"
    "$programs/gpu_step"
    section "PyTorch on the same card"
    python3 benches/gpu_torch.py 2>&1 || true
}

case ${1:-} in
pack) pack "${2:?where to put the programs}" ;;
run)
    file=gpu-$(date -u +%Y-%m-%d-%H%M).txt
    run "${@:2}" 2>&1 | tee "$file"
    echo "written to $file"
    ;;
*) sed -n '2,7p' "$0" >&2 && exit 2 ;;
esac
