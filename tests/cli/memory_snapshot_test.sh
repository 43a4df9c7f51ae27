#!/bin/bash
# Do memory snapshots load in Python, are they what PyTorch's viewer can read, and do their events replay to the
# peaks of the report?
set -eu
shardsim=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() {  # NAME ARGUMENTS...
  local name=$1
  shift
  "$shardsim" run --no-advice --memory-snapshot "$work/$name.pickle" --format json -o "$work/$name.json" "$@"
  python3 - "$work/$name.pickle" "$work/$name.json" <<'PYTHON' || { echo "$name: wrong"; exit 1; }
import json, pickle, pickletools, sys

raw = open(sys.argv[1], 'rb').read()
snapshot, report = pickle.loads(raw), json.load(open(sys.argv[2]))

# What torch/utils/viz/MemoryViz.js understands.
readable = set('''APPEND APPENDS BINGET BININT BININT1 BININT2 EMPTY_DICT EMPTY_LIST FRAME LONG1 LONG_BINGET MARK
  MEMOIZE PROTO SETITEMS SHORT_BINUNICODE STOP TUPLE2 NEWFALSE BINPUT BINUNICODE EMPTY_TUPLE NEWTRUE NONE BINFLOAT
  TUPLE TUPLE1 TUPLE3 LONG_BINPUT LIST DICT SETITEM'''.split())
used = {op.name for op, _, _ in pickletools.genops(raw)}
assert used <= readable, used - readable
events, segments = snapshot['device_traces'][0], snapshot['segments']
assert 'unknown' in {e['category'] for e in events}
allocated = active = reserved = 0
peak = {'peak_allocated': 0, 'peak_active': 0, 'peak_reserved': 0}
live, time = {}, 0
for e in events:
    assert e['time_us'] >= time, 'time goes back'
    time = e['time_us']
    size = e['size']
    if e['action'] == 'alloc':
        assert e['addr'] not in live
        live[e['addr']] = size
        allocated += size
        active += size
    elif e['action'] == 'free_requested':
        assert live[e['addr']] == size
        allocated -= size
    elif e['action'] == 'free_completed':
        assert live.pop(e['addr']) == size
        active -= size
    elif e['action'] in ('segment_alloc', 'segment_map'):
        reserved += size
    elif e['action'] in ('segment_free', 'segment_unmap'):
        reserved -= size
    for key, now in (('peak_allocated', allocated), ('peak_active', active), ('peak_reserved', reserved)):
        peak[key] = max(peak[key], now)
for key, bytes in peak.items():
    assert bytes == report['memory_bytes'][key], (key, bytes, report['memory_bytes'][key])

# The segments are the state after the last event.
assert sum(s['total_size'] for s in segments) == reserved
assert sum(s['active_size'] for s in segments) == active
assert sum(s['allocated_size'] for s in segments) == allocated
for s in segments:
    at = s['address']
    for b in s['blocks']:
        assert b['address'] == at and b['requested_size'] <= b['size']
        assert (b['state'] == 'inactive') == (b['address'] not in live)
        at += b['size']
    assert at == s['address'] + s['total_size']

oom = [e for e in events if e['action'] == 'oom']
assert bool(oom) == (report['status'] == 'oom')
if oom:
    assert oom[-1]['device_free'] == report['oom']['free_bytes']
    assert oom[-1]['frames'][0]['name'] == report['oom']['tensor']
    assert oom[-1]['frames'][0]['filename'] == report['oom']['phase']
print(f"{len(events)} events, {len(raw) / len(events):.0f} bytes each")
PYTHON
}

gpt2=(--model gpt2 --topology dgx-a100-40gb --gpus 16 --micro-batch 2)
check fsdp "${gpt2[@]}" --strategy fsdp
check ddp "${gpt2[@]}" --strategy ddp
check offload "${gpt2[@]}" --strategy zero3 --set strategy.cpu_offload=optimizer
check expandable "${gpt2[@]}" --strategy fsdp --set allocator.expandable_segments=true
check retries fsdp-paper/rate-limiter --gpus 16 --set strategy.limit_all_gathers=false
check oom --model gpt2-xl --topology dgx-a100-40gb --gpus 8 --strategy ddp --micro-batch 8
check oom-expandable --model gpt2-xl --topology dgx-a100-40gb --gpus 8 --strategy ddp --micro-batch 8 \
  --set allocator.expandable_segments=true

refuse() {  # TEXT ARGUMENTS...
  local text=$1
  shift
  if "$shardsim" run "${gpt2[@]}" --strategy fsdp "$@" >"$work/out" 2>"$work/err"; then
    echo "accepted: $*"
    exit 1
  elif [ $? -ne 2 ] || ! grep -qF "$text" "$work/err"; then
    cat "$work/err"
    exit 1
  fi
}
refuse 'exists already; --force overwrites it' --memory-snapshot "$work/fsdp.pickle"
refuse 'a file that ends in .pickle is expected' --memory-snapshot "$work/fsdp.txt"
refuse 'cannot be written' --memory-snapshot "$work/nowhere/a.pickle"
"$shardsim" run "${gpt2[@]}" --strategy fsdp --memory-snapshot "$work/fsdp.pickle" --force >/dev/null
