#!/usr/bin/env bash
# Measures training steps, translation, convolutions and norms on a GPU, PyTorch beside them where python3 has it, in under
# ten minutes, and prints one table.
#
#   scripts/measure.sh PROGRAM [flags…]     scripts/measure.sh target/release/ugatit
#
# The flags shape the networks, such as --size 128 --batch-size 4, and --runs says how many runs are timed. Records and whole
# tables go to OUT_DIR (measured), PARTS picks some of: step full infer conv adalin torch. UGATIT_DEVICE says which GPU;
# without one the emulator predicts.
set -euo pipefail

case ${1:-} in
'' | -h | --help)
    sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p;}' "${BASH_SOURCE[0]}"
    exit $((${#} == 0 ? 2 : 0))
    ;;
esac
program=$1
shift
[ -x "$program" ] || {
    echo "error: $program is no program; give the path of ugatit" >&2
    exit 2
}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT_DIR:-measured}
parts=${PARTS:-step full infer conv adalin torch}
mkdir -p "$out"
deadline=$((SECONDS + 580))
records=()
verdicts=()
failed=

# Runs a part for at most so many seconds of those that are left; what it prints goes to a file. A part that fails or takes too
# long is named, and the others go on.
part() {
    local name=$1 seconds=$2 left=$((deadline - SECONDS))
    shift 2
    case " $parts " in *" $name "*) ;; *) return 0 ;; esac
    if [ "$left" -le 5 ]; then
        echo "$name: no time is left"
        verdict fail "$name"
        return 0
    fi
    echo "$name …"
    if timeout $((seconds < left ? seconds : left)) "$@" >"$out/$name.txt" 2>&1; then
        verdict pass "$name"
    else
        tail -n 5 "$out/$name.txt"
        verdict fail "$name"
    fi
}

verdict() {
    verdicts+=("$1  measured $2")
    [ "$1" = pass ] || failed="$failed $2"
}

rm -f "$out"/{step,full,infer,conv,adalin,torch}.json
part step 120 "$program" bench step --light --json "$out/step.json" "$@"
part full 90 "$program" bench step --precision tf32 --json "$out/full.json" "$@"
part infer 60 "$program" bench infer --light --batch-size 1,4,16 --json "$out/infer.json" "$@"
part conv 150 "$program" bench conv --light --json "$out/conv.json" $(printf '%s\n' "$@" | sed '/^--runs$/,+1d')
part adalin 90 "$program" bench adalin --dtype f32 --shape 1,64,64,256 --shape 16,64,64,256 --json "$out/adalin.json"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    for peer in "$here/../benches/torch_step.py" "$here/torch_step.py"; do
        if [ -f "$peer" ]; then
            part torch 240 python3 "$peer" --light --work step,infer --form official:tf32,amp:bf16,best:bf16,best:tf32 \
                --json "$out/torch.json" "$@"
            break
        fi
    done
else
    echo "torch: python3 has no PyTorch that sees a GPU"
fi

for name in step full infer torch; do
    [ -s "$out/$name.json" ] && records+=("$out/$name.json")
done
if [ -s "$out/conv.json" ]; then
    "$program" bench conv --show "$out/conv.json" | grep '^all of a step'
fi
if [ ${#records[@]} -gt 0 ]; then
    "$program" bench step --show "${records[@]}" | tee "$out/table.txt"
fi
printf '%s\n' "${verdicts[@]}"
echo "records and tables: $out; $((SECONDS)) s"
if [ -n "$failed" ]; then
    echo "failed:$failed"
    exit 1
fi
