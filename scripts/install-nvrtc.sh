#!/usr/bin/env bash
# Installs NVRTC, NVIDIA's CUDA C++ compiler as a library, into .nvrtc of this repository.
# The build compiles the kernels with it; neither a GPU nor a CUDA toolkit is needed.
#
#   scripts/install-nvrtc.sh            does nothing where the build finds an NVRTC already
#   scripts/install-nvrtc.sh --force    installs into .nvrtc anyway
#   scripts/install-nvrtc.sh --tools    adds nvdisasm and cuobjdump, to look at machine code
set -euo pipefail

nvrtc='nvidia-cuda-nvrtc-cu12==12.9.86'
tools='nvidia-cuda-nvdisasm==13.5.37 nvidia-cuda-cuobjdump==13.5.37'
oldest_major=12
oldest_minor=4

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/.nvrtc

fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# Prints the library where a folder, or a subfolder as toolkits and wheels have them, holds an
# NVRTC that is new enough. crates/nvrtc looks in the same places.
look_in() {
    local sub builtins version major minor library
    for sub in . lib64 lib targets/x86_64-linux/lib targets/sbsa-linux/lib nvidia/cuda_nvrtc/lib \
        nvidia/cu12/lib nvidia/cu13/lib; do
        for builtins in "$1/$sub"/libnvrtc-builtins.so.*.*; do
            [ -e "$builtins" ] || continue
            version=${builtins##*libnvrtc-builtins.so.}
            major=${version%%.*}
            minor=${version#*.}
            minor=${minor%%.*}
            case $major$minor in *[!0-9]*) continue ;; esac
            if [ "$major" -lt $oldest_major ] ||
                { [ "$major" -eq $oldest_major ] && [ "$minor" -lt $oldest_minor ]; }; then
                continue
            fi
            for library in "$1/$sub/libnvrtc.so" "$1/$sub/libnvrtc.so.$major"*; do
                if [ -e "$library" ]; then
                    printf '%s\n' "$library"
                    return 0
                fi
            done
        done
    done
    return 1
}

find_nvrtc() {
    local folder
    if [ -n "${NVRTC_DIR:-}" ]; then
        look_in "$NVRTC_DIR" || fail "NVRTC_DIR=$NVRTC_DIR holds no NVRTC of version $oldest_major.$oldest_minor or newer" \
            'unset NVRTC_DIR, and run this again'
        return
    fi
    for folder in "${CUDA_PATH:-}" "${CUDA_HOME:-}" /usr/local/cuda /usr/lib/x86_64-linux-gnu \
        /usr/lib/aarch64-linux-gnu /usr/lib64 /usr/lib /opt/cuda "$target" \
        ${VIRTUAL_ENV:+"$VIRTUAL_ENV"/lib/*/site-packages}; do
        if [ -n "$folder" ] && look_in "$folder"; then
            return 0
        fi
    done
    return 1
}

force=false
with_tools=false
for argument in "$@"; do
    case $argument in
    --force) force=true ;;
    --tools) with_tools=true ;;
    -h | --help)
        sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p;}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) fail "unknown argument '$argument'" 'it takes --force, --tools and --help' ;;
    esac
done

wanted=()
if $force; then
    wanted+=("$nvrtc")
elif found=$(find_nvrtc); then
    printf 'NVRTC is there: %s\n' "$found"
elif [ -n "${NVRTC_DIR:-}" ]; then
    exit 1
else
    wanted+=("$nvrtc")
fi
if $with_tools && { $force || [ ! -x "$target/nvidia/cu13/bin/nvdisasm" ] || [ ! -x "$target/nvidia/cu13/bin/cuobjdump" ]; }; then
    # shellcheck disable=SC2206
    wanted+=($tools)
fi
[ ${#wanted[@]} -gt 0 ] || exit 0

command -v python3 >/dev/null || fail 'python3 is needed to download NVRTC, and there is none' \
    'apt-get install python3-pip, or set NVRTC_DIR to the folder of an installed libnvrtc.so'
python3 -m pip --version >/dev/null 2>&1 || fail 'pip is needed to download NVRTC, and python3 has none' \
    'apt-get install python3-pip, or python3 -m ensurepip'

# First into a folder beside the target, so that an interrupted download leaves nothing half.
new=$(mktemp -d "$root/.nvrtc.XXXXXX")
trap 'rm -rf "$new"' EXIT
printf 'downloading %s\n' "${wanted[*]}"
export PIP_USER=0 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
if ! python3 -m pip install --quiet --no-deps --only-binary :all: --target "$new/tree" "${wanted[@]}"; then
    fail "pip could not install ${wanted[*]}" \
        'is this machine online? set NVRTC_DIR to the folder of libnvrtc.so where NVRTC is installed otherwise'
fi
# The wheel holds a second, slower build of the compiler.
rm -f "$new"/tree/nvidia/*/lib/*.alt.so*

# What is there already and is not installed anew stays.
if [ -d "$target" ]; then
    cp -al "$target" "$new/both"
    cp -al --remove-destination "$new/tree/." "$new/both/"
    mv "$target" "$new/old"
    mv "$new/both" "$target"
else
    mv "$new/tree" "$target"
fi
chmod 755 "$target"

case ${wanted[*]} in
*nvrtc*) look_in "$target" >/dev/null || fail "the wheel holds no libnvrtc where it was expected, in $target" ;;
esac
printf 'installed into %s\n' "$target"
