#!/usr/bin/env bash
# Runs every test, those in the documentation too. Needs no GPU: the kernels run on the emulator.
# Arguments go to cargo test, as in `scripts/test.sh adalin`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/install-nvrtc.sh
exec cargo test --workspace "$@"
