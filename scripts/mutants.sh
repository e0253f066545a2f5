#!/usr/bin/env bash
# Breaks src/device/cuda in one place after the other and says which of these mutants the tests over the fake driver
# notice. Fails where one goes unnoticed that should not. Works on a copy of the last commit in target/mutants; a mutant
# takes about a minute, the first build some more.
#
#   scripts/mutants.sh            all mutants
#   scripts/mutants.sh --list     their names
#   scripts/mutants.sh NAME…      those
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
cuda=src/device/cuda
case ${1:-} in
-h | --help)
    sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p;}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

wanted=("$@")
tree=
ended=
missed=()

prepare() {
    scripts/install-nvrtc.sh
    work=$(mktemp -d)
    # At the same place each time, or cargo would build everything anew.
    tree=$root/target/mutants/tree
    trap 'cd "$root"; git worktree remove --force "$tree"; rm -rf "$work"' EXIT
    [ ! -e "$tree" ] || git worktree remove --force "$tree"
    git worktree prune
    git worktree add --quiet --detach "$tree" HEAD
    [ ! -e .nvrtc ] || ln -s "$root/.nvrtc" "$tree/.nvrtc"
    export CARGO_TARGET_DIR=$root/target/mutants/target
    cd "$tree"
    build || fail 'the last commit does not build'
    passes || fail "the tests fail without a mutant: $work/output"
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

build() {
    cargo build --quiet --examples >"$work/output" 2>&1 && cargo test --quiet --test suite --no-run >>"$work/output" 2>&1
}

# On a busy machine the tests take minutes; a mutant may make them wait forever.
passes() {
    ended=0
    timeout 900 cargo test --quiet --test suite fake:: >"$work/output" 2>&1 || ended=$?
    [ "$ended" -eq 0 ]
}

# mutant NAME noticed|unnoticed FILE OLD NEW: OLD must stand in FILE once.
mutant() {
    local name=$1 expected=$2 file=$3 old=$4 new=$5
    if [ "${wanted[0]:-}" = --list ]; then
        printf '%s\n' "$name"
        return
    fi
    if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then
        return
    fi
    [ -n "$tree" ] || prepare
    OLD=$old NEW=$new python3 - "$file" <<'PYTHON' || fail "$name: the text to replace does not stand once in $file"
import os
import sys

path = sys.argv[1]
text = open(path).read()
if text.count(os.environ["OLD"]) != 1:
    sys.exit(1)
open(path, "w").write(text.replace(os.environ["OLD"], os.environ["NEW"]))
PYTHON
    build || fail "$name does not compile: $(grep -m1 '^error' "$work/output")"
    local found=noticed by=
    if passes; then
        found=unnoticed
    else
        by=$(sed -n 's/^test \(fake::[a-z_]*\) .*FAILED$/\1/p; s/^    \(fake::[a-z_]*\)$/\1/p' "$work/output" | sort -u | sed -n 1,3p | paste -sd ' ')
        [ "$ended" -ne 124 ] || by="no end within 900 s $by"
    fi
    printf '%-28s %-10s %s\n' "$name" "$found" "$by"
    [ "$found" = "$expected" ] || missed+=("$name")
    git checkout --quiet -- .
}

# Copies and their staging.
mutant staging-not-waited-for noticed $cuda/mod.rs '            staging.free.synchronize().map_err(self.waiting())?;
' ''
mutant staging-not-recorded noticed $cuda/mod.rs '            staging.free.record(&self.stream).map_err(uploading())?;
' ''
# Harmless: the call waits by itself where the target is not pinned. A test counts the waits.
mutant download-not-waited-for noticed $cuda/mod.rs '        .map_err(self.waiting())?;
        self.synchronize()' '        .map_err(self.waiting())?;
        Ok(())'

# Captures.
mutant waits-in-capture noticed $cuda/graph.rs '        put = step.start(stream)' '        _ = stream.synchronize();
        put = step.start(stream)'
mutant allocates-in-capture noticed $cuda/graph.rs '        put = step.start(stream)' '        _ = unsafe { stream.context.driver.cuMemAlloc_v2(&mut 0, 256) };
        put = step.start(stream)'
mutant capture-left-open noticed $cuda/graph.rs '        if put.is_err() {
            break;
        }' '        put.clone()?;'

# The stream.
mutant default-stream noticed $cuda/handle.rs 'unsafe { context.driver.cuStreamCreate(&mut raw, STREAM_NON_BLOCKING) }?;' 'let _ = STREAM_NON_BLOCKING;'

# Arguments.
mutant values-at-the-wrong-end noticed $cuda/graph.rs '[a, b, c, d, 0, 0, 0, 0]' '[0, 0, 0, 0, a, b, c, d]'
mutant address-without-base noticed $cuda/graph.rs 'base(buffer.space) + buffer.offset + range.offset' 'buffer.offset + range.offset'
mutant address-without-offset noticed $cuda/graph.rs 'base(buffer.space) + buffer.offset + range.offset' 'base(buffer.space) + range.offset'

# Modules and launches.
mutant cubin-of-another-major noticed $cuda/load.rs 'arch / 10 == capability / 10 && arch <= capability' 'arch <= capability'
mutant shared-memory-not-asked-for noticed $cuda/load.rs 'if dynamic_shared > function.dynamic_shared {' 'if false {'
mutant cooperative-launched-plainly noticed $cuda/graph.rs 'if self.cooperative {' 'if false {'
mutant residency-not-asked-for noticed $cuda/load.rs 'if launch.cooperative {' 'if false {'

# Time.
mutant end-not-recorded noticed $cuda/mod.rs '        }
        self.ended.record(&self.stream).map_err(running())' '        }
        Ok(())'
mutant times-in-microseconds noticed $cuda/graph.rs 'samples.push(pair[0].milliseconds_to(&pair[1]).map_err(timing())?)' 'samples.push(1e3 * pair[0].milliseconds_to(&pair[1]).map_err(timing())?)'

# What goes, and when.
mutant freed-twice noticed $cuda/mod.rs '        self.memory[allocation.0 as usize] = None;
' ''
mutant release-without-waiting noticed $cuda/mod.rs '        self.synchronize()?;
        for slot' '        for slot'
mutant drop-without-waiting noticed $cuda/mod.rs '        _ = self.stream.synchronize();
        self.programs.clear();' '        self.programs.clear();'
mutant graphs-leaked noticed $cuda/mod.rs '        self.programs.clear();' '        std::mem::forget(std::mem::take(&mut self.programs));'
mutant modules-leaked noticed $cuda/mod.rs '            self.loaded.unload(driver);
' ''
mutant pinned-memory-leaked noticed $cuda/mod.rs '                _ = driver.cuMemFreeHost(staging.host.cast());' '                _ = staging.host;'

# The current context.
mutant allocate-without-context noticed $cuda/mod.rs '        self.bind()?;
        let mut address = 0;' '        let mut address = 0;'
# Harmless: waiting for the event makes the context current as well.
mutant upload-without-context unnoticed $cuda/mod.rs '        self.bind()?;
        for chunk' '        for chunk'
mutant prepare-without-context noticed $cuda/mod.rs '        self.bind()?;
        let (state_memory' '        let (state_memory'

[ "${wanted[0]:-}" = --list ] || [ -n "$tree" ] || fail "no such mutant; $0 --list names them"
[ ${#missed[@]} -eq 0 ] || fail "otherwise than expected: ${missed[*]}"
