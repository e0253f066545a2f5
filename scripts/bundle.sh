#!/usr/bin/env bash
# Packs the tests, the benchmarks and the program with what they read, to run on a machine with a
# GPU that has neither Rust nor CUDA: unpack there and start run.sh.
#
#   scripts/bundle.sh [bundle.tar.xz | bundle.tar.zst]
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
'') output=$PWD/bundle.tar.xz ;;
/*) output=$1 ;;
*) output=$start/$1 ;;
esac
# Each program has all kernels in it, some 50 MB. Both look back far enough to find them in the program before, and what they
# make unpacks without further flags.
case $output in
*.tar.xz) pack=(xz -9 -T1) ;;
*.tar.zst) pack=(zstd -19 --long=27 -T0 -q) ;;
*) fail "the bundle must be named .tar.xz or .tar.zst, not $(basename "$output")" ;;
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
    elif name == "tidy" or kind in ("example", "cdylib"):
        continue  # It reads sources, which the bundle does not have; examples have no tests.
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
for folder in tests/golden tests/images tests/model samples; do
    if [ -d "$folder" ]; then
        mkdir -p "$tree/root/$(dirname "$folder")"
        cp -R "$folder" "$tree/root/$folder"
    fi
done
# What measures: the program beside PyTorch, where there is one.
cp scripts/measure.sh benches/torch_step.py benches/torch_adalin.py "$tree/bin/"

cat >"$tree/run.sh" <<'RUN'
#!/bin/sh
# Checks and measures the program of this bundle on the GPU, part after part, and says of each whether it passed. A part
# that fails does not keep the others from running.
#
#   ./run.sh                   all of what follows, and what `ugatit doctor` finds; some twenty minutes
#   ./run.sh --test [name…]    the tests and the recorded runs, or the tests whose name has one of these words
#   ./run.sh --measure         training steps, translation, convolutions and norms, and a profile of each kernel
#   ./run.sh --bench [name…]   the benchmarks under criterion
#   ./run.sh ugatit …          the program with these arguments
#
# Records and the text of each part go to records/. UGATIT_DEVICE says where, cuda if it is not set (cuda:1, emulator).
# UGATIT_ONLY picks one of the files in tests/ or benches/. UGATIT_QUICK=1 measures small networks, a run each, and leaves
# criterion out: to see that all works.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
export UGATIT_ROOT="$here/root"
export UGATIT_DEVICE="${UGATIT_DEVICE:-cuda}"
export CARGO_BIN_EXE_ugatit="$here/bin/ugatit"
records="$here/records"
export CRITERION_HOME="$records/criterion"
program="$here/bin/ugatit"

# Runs a part; its text goes to the screen and to records/.
part() {
    name=$1
    shift
    echo "== $name"
    { "$@" 2>&1 && : >"$records/passed"; } | tee "$records/$(echo "$name" | tr ' /' '--').txt"
    if [ -e "$records/passed" ]; then
        rm "$records/passed"
        echo "pass  $name" >>"$records/verdicts"
    else
        echo "fail  $name" >>"$records/verdicts"
    fi
}

# The tests over the stand-in for the driver are for machines without one; it is not in the bundle.
tests() {
    for file in "$here"/tests/${UGATIT_ONLY:-*}; do
        [ -x "$file" ] || continue
        name=tests/$(basename "$file")
        if [ "$name" = tests/suite ] && [ $# -eq 0 ]; then
            # What a fault leaves of the GPU's context goes with the process, so each module has one.
            for module in $("$file" --list | sed -n 's/::.*: test$//p' | sort -u | grep -vx fake); do
                part "$name $module" "$file" --skip fake:: "$module::"
            done
        else
            part "$name" "$file" --skip fake:: "$@"
        fi
    done
}

recorded() {
    for file in tests/golden/*.safetensors; do
        part "recorded $(basename "$file" .safetensors)" "$program" verify --device "$UGATIT_DEVICE" "$file"
    done
}

measure() {
    if [ "${UGATIT_QUICK:-0}" = 1 ]; then
        small='--size 16 --ch 8 --n-res 1 --n-dis 2'
        OUT_DIR="$records" PARTS='step infer conv' part measure.sh bash "$here/bin/measure.sh" "$program" $small --runs 1
        part 'measured norms' "$program" bench adalin --shape 1,8,8,16 --dtype f32 --json "$records/adalin.json"
    else
        small=
        OUT_DIR="$records" part measure.sh bash "$here/bin/measure.sh" "$program"
    fi
    grep -E '^(pass|fail)  ' "$records/measure.sh.txt" >>"$records/verdicts"
    part profile "$program" profile --light $small --device "$UGATIT_DEVICE"
}

benches() {
    for file in "$here"/benches/${UGATIT_ONLY:-*}; do
        [ -x "$file" ] && part "benches/$(basename "$file")" "$file" --bench "$@"
    done
}

case ${1:-} in
-h | --help)
    sed -n '2,/^here/{s/^# \{0,1\}//;/^here/d;p;}' "$0"
    exit 0
    ;;
ugatit)
    shift
    exec "$program" "$@"
    ;;
esac

mkdir -p "$records" && : >"$records/verdicts" && rm -f "$records/passed" || exit 1
cd "$UGATIT_ROOT" || exit 1
case ${1:-} in
'')
    ! command -v nvidia-smi >/dev/null || nvidia-smi -q >"$records/nvidia-smi.txt"
    part doctor "$program" doctor --device "$UGATIT_DEVICE"
    "$program" doctor --device "$UGATIT_DEVICE" --json >"$records/doctor.json" 2>/dev/null
    recorded
    tests
    measure
    [ "${UGATIT_QUICK:-0}" = 1 ] || benches
    ;;
--test)
    shift
    [ $# -gt 0 ] || recorded
    tests "$@"
    ;;
--measure) measure ;;
--bench)
    shift
    benches "$@"
    ;;
*)
    echo "error: unknown argument $1; ./run.sh --help shows what there is" >&2
    exit 2
    ;;
esac
echo "== on $UGATIT_DEVICE"
cat "$records/verdicts"
echo "records: $records"
! grep -q '^fail' "$records/verdicts"
RUN
chmod 755 "$tree/run.sh"

# The programs last and one after the other, so that what they have in common is near.
tar -C "$tree/.." --sort=name --owner=0 --group=0 --numeric-owner -cf - ugatit-bundle/run.sh \
    ugatit-bundle/root ugatit-bundle/{benches,bin,tests} | "${pack[@]}" >"$work/packed"
size=$(stat -c %s "$work/packed")
[ "$size" -lt "$limit" ] || fail "the bundle has $size bytes, more than the $limit it may have"
mv "$work/packed" "$output"
chmod 644 "$output"
printf '%s: %s.%s MiB, %s files in tests/, %s in benches/\n' "$output" $((size >> 20)) $(((size >> 10) % 1024 * 10 / 1024)) \
    "$(find "$tree/tests" -type f | wc -l)" "$(find "$tree/benches" -type f | wc -l)"
