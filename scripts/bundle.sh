#!/usr/bin/env bash
# Packs the tests, the benchmarks and the program with what they read, to run on a machine with a
# GPU that has neither Rust nor CUDA: unpack there and start run.sh.
#
#   scripts/bundle.sh [bundle.tar.gz | bundle.tar.zst]
set -euo pipefail

limit=$((64 << 20))
start=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

case ${1:-} in
-h | --help)
    sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p;}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
'') output=$PWD/bundle.tar.gz ;;
/*) output=$1 ;;
*) output=$start/$1 ;;
esac
case $output in
*.tar.gz) pack=(gzip -9) ;;
*.tar.zst) pack=(zstd -19 -T0 -q) ;;
*) fail "the bundle must be named .tar.gz or .tar.zst, not $(basename "$output")" ;;
esac
command -v "${pack[0]}" >/dev/null || fail "${pack[0]} is not installed"

scripts/install-nvrtc.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/ugatit-bundle
mkdir -p "$tree/bin" "$tree/tests" "$tree/benches" "$tree/root"

cargo build --release --bins --message-format=json-render-diagnostics >"$work/messages"
cargo test --release --all-targets --no-run --message-format=json-render-diagnostics >>"$work/messages"

# What cargo built, as `<folder>/<name> <path>`: a test of a library or program is named unit-….
python3 - "$work/messages" >"$work/built" <<'PYTHON'
import json
import sys

found = {}
for line in open(sys.argv[1]):
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("reason") != "compiler-artifact" or not message.get("executable"):
        continue
    kind, name = message["target"]["kind"][0], message["target"]["name"]
    if kind == "bench":
        place = f"benches/{name}"
    elif name == "tidy":
        continue  # It reads sources, which the bundle does not have.
    elif message["profile"]["test"]:
        place = f"tests/{name}" if kind == "test" else f"tests/unit-{name}-{kind}"
    elif kind == "bin":
        place = f"bin/{name}"
    else:
        continue
    found[place] = message["executable"]
for place, path in sorted(found.items()):
    print(place, path)
PYTHON
while read -r place path; do
    cp "$path" "$tree/$place"
    strip "$tree/$place"
done <"$work/built"
ls "$tree"/tests/* >/dev/null 2>&1 || fail 'cargo built no tests'

# What they read, at the places it has in the repository.
for folder in tests/golden samples; do
    if [ -d "$folder" ]; then
        mkdir -p "$tree/root/$(dirname "$folder")"
        cp -R "$folder" "$tree/root/$folder"
    fi
done
# What measures: the program beside PyTorch, where there is one.
cp scripts/measure.sh benches/torch_step.py benches/torch_adalin.py "$tree/bin/"

cat >"$tree/run.sh" <<'RUN'
#!/bin/sh
# Checks and measures the program of this bundle on the GPU, part after part, and says of each whether it passed.
#
#   ./run.sh                   all: what `ugatit doctor` finds, the tests, the measurements; records and texts in records/
#   ./run.sh --test [name…]    the tests, all or those whose name has one of these words
#   ./run.sh --measure         the measurements
#   ./run.sh --bench [name…]   the benchmarks under criterion
#   ./run.sh ugatit …          the program with these arguments
#
# UGATIT_DEVICE says where, cuda if it is not set (cuda:1, emulator). UGATIT_ONLY picks one of the files in tests/ or
# benches/. UGATIT_QUICK=1 measures small networks, a run each: to see that all works.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
export UGATIT_ROOT="$here/root"
export UGATIT_DEVICE="${UGATIT_DEVICE:-cuda}"
export CARGO_BIN_EXE_ugatit="$here/bin/ugatit"
records="$here/records"
passed=
failed=

# Runs a part; its text goes to the screen and to records/.
part() {
    name=$1
    shift
    echo "== $name"
    { "$@" 2>&1 || echo "$name" >>"$records/failed"; } | tee "$records/$(echo "$name" | tr ' /' '--').txt"
    if grep -qx "$name" "$records/failed" 2>/dev/null; then
        failed="$failed
fail  $name"
    else
        passed="$passed
pass  $name"
    fi
}

each() {
    folder=$1
    shift
    for file in "$here/$folder"/${UGATIT_ONLY:-*}; do
        [ -x "$file" ] && part "$folder/$(basename "$file")" "$file" "$@"
    done
}

# The tests over the stand-in for the driver are for machines without one; it is not in the bundle.
tests() {
    each tests --skip fake:: "$@"
}

measure() {
    if [ "${UGATIT_QUICK:-0}" = 1 ]; then
        OUT_DIR="$records" PARTS='step infer' part measurements bash "$here/bin/measure.sh" "$here/bin/ugatit" \
            --size 16 --ch 8 --n-res 1 --n-dis 2 --runs 1
        part 'measured norms' "$here/bin/ugatit" bench adalin --shape 1,8,8,16 --dtype f32 --json "$records/adalin.json"
    else
        OUT_DIR="$records" part measurements bash "$here/bin/measure.sh" "$here/bin/ugatit"
    fi
}

case ${1:-} in
-h | --help)
    sed -n '2,/^here/{s/^# \{0,1\}//;/^here/d;p;}' "$0"
    exit 0
    ;;
ugatit)
    shift
    exec "$here/bin/ugatit" "$@"
    ;;
esac

mkdir -p "$records" && rm -f "$records/failed"
cd "$UGATIT_ROOT" || exit 1
case ${1:-} in
'')
    part doctor "$here/bin/ugatit" doctor --device "$UGATIT_DEVICE"
    "$here/bin/ugatit" doctor --device "$UGATIT_DEVICE" --json >"$records/doctor.json" 2>/dev/null
    tests
    measure
    ;;
--test)
    shift
    tests "$@"
    ;;
--measure) measure ;;
--bench)
    shift
    each benches --bench "$@"
    ;;
*)
    echo "error: unknown argument $1; ./run.sh --help shows what there is" >&2
    exit 2
    ;;
esac
echo "== on $UGATIT_DEVICE"
echo "$passed$failed" | sed '/^$/d'
echo "records: $records"
[ -z "$failed" ]
RUN
chmod 755 "$tree/run.sh"

tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -cf - ugatit-bundle | "${pack[@]}" >"$work/packed"
size=$(stat -c %s "$work/packed")
[ "$size" -lt "$limit" ] || fail "the bundle has $size bytes, more than the $limit it may have"
mv "$work/packed" "$output"
chmod 644 "$output"
printf '%s: %s.%s MiB, %s files in tests/, %s in benches/\n' "$output" $((size >> 20)) $(((size >> 10) % 1024 * 10 / 1024)) \
    "$(find "$tree/tests" -type f | wc -l)" "$(find "$tree/benches" -type f | wc -l)"
