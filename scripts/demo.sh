#!/usr/bin/env bash
# Installs what is missing and trains on the sample images: under five minutes on two cores, no GPU needed.
# With an NVIDIA GPU it uses that. Ends by naming the images to look at. Usage: scripts/demo.sh [OUT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/demo}

if ! command -v cargo >/dev/null; then
    echo "error: cargo is not installed" >&2
    echo "hint: install Rust from https://rustup.rs, or your distribution's rustup, then run this again" >&2
    exit 1
fi
scripts/install-nvrtc.sh
cargo build --release --bin ugatit
resume=()
[ -e "$out" ] && resume=(--resume)
target/release/ugatit train samples/emoji-people --out "$out" "${resume[@]}" \
    --light --size 32 --ch 8 --n-res 2 --n-dis 4 --lr 0.001 --steps 200 --sample-every 50 --save-every 100
target/release/ugatit translate "$out" samples/emoji-people/testA --direction a2b --out "$out/translated" --heatmap
echo
echo "Look at:"
ls "$out"/samples/step-*.png | tail -n 1
echo "$out/translated"
