#!/usr/bin/env bash
# Fused AdaLIN against unfused, and against PyTorch where python3 has it, as one table. Needs a GPU for times; without
# one it prints the emulator's counts. Arguments go to both, such as: --kind iln --dtype bf16 --shape 4,64,64,256
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/install-nvrtc.sh
out=${OUT_DIR:-target/bench}
mkdir -p "$out"
cargo build --release
ugatit=${CARGO_TARGET_DIR:-target}/release/ugatit
files=("$out/adalin-ugatit.json")
"$ugatit" bench adalin --json "${files[0]}" "$@"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    files+=("$out/adalin-torch.json")
    python3 benches/torch_adalin.py --json "${files[1]}" "$@"
fi
"$ugatit" bench adalin --show "${files[@]}"
