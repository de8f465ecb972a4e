#!/usr/bin/env bash
# What a GPU makes of medzsad, in at most 8 minutes: forward passes, a training step of each method, and a small
# training in each precision; times, ratios to fp32 and differences from it.
#
#   tools/bench/gpu_check.sh                     the first GPU, ViT-L/14 at 518 px
#   DEVICE=cpu BACKBONE=ViT-B-32 SIDE=224 tools/bench/gpu_check.sh     to try the script itself
#
# OUT names a folder for the tables and the runs (default: a temporary one). Exits with 1 if a part failed or ran
# out of time, and with 2 if there is no such device. No weights and no data are needed.
set -u
cd "$(dirname "$0")/../.." || exit 2
DEVICE=${DEVICE:-cuda} BACKBONE=${BACKBONE:-ViT-L-14-336} SIDE=${SIDE:-518} LIMIT=${LIMIT:-480}
OUT=${OUT:-$(mktemp -d)}
PYTHON=${PYTHON:-python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$OUT" || exit 2

if ! "$PYTHON" -c "import torch; torch.empty(1, device='$DEVICE')" 2>/dev/null; then
  echo "Error: PyTorch has no device '$DEVICE' here; set DEVICE, or install a PyTorch for your GPU." >&2
  exit 2
fi
if [[ $DEVICE == cpu ]]; then precisions=(fp32 bf16); else precisions=(fp32 tf32 bf16 fp16); fi

failed=0
part() {  # part SECONDS TITLE COMMAND...: at most SECONDS, and never beyond the limit of all
  local seconds=$1 title=$2 left=$((LIMIT - SECONDS))
  shift 2
  if ((left < seconds)); then seconds=$left; fi
  printf '\n## %s\n' "$title"
  if ((seconds <= 0)); then echo "left out: the time is up"; failed=1; return; fi
  timeout --kill-after=5 "$seconds" "$@"
  local code=$?
  if ((code)); then echo "failed with $code (124: longer than $seconds s)"; failed=1; fi
}

forward() {
  part 150 "Forward passes" "$PYTHON" tools/bench/gpu_forward.py --device "$DEVICE" --backbone "$BACKBONE" \
    --side "$SIDE" --batch 1 --batch 8
}

steps() {  # last, with all the time that is left: every row builds a model of its own
  local options=()
  for precision in "${precisions[@]}"; do
    if [[ $precision != fp16 ]]; then options+=(--precision "$precision"); fi
  done
  part "$LIMIT" "A training step" "$PYTHON" tools/bench/training_step.py --device "$DEVICE" --backbone "$BACKBONE" \
    --image-size "$SIDE" --variant plain --steps 3 "${options[@]}"
}

trainings() {
  for precision in "${precisions[@]}"; do
    part 45 "A small training in $precision" "$PYTHON" -m medzsad train --config configs/smoke.yaml \
      -o "$OUT/smoke-$precision" --device "$DEVICE" --fresh "precision=$precision" epochs=8 validation.every=8
  done
  part 20 "Their losses" "$PYTHON" - "$OUT" "${precisions[@]}" <<'PYTHON'
import json
import sys
from pathlib import Path

out, *precisions = sys.argv[1:]
print("| precision | first loss | last loss | times fp32's | s/step | times fp32 |")
print("|---|---|---|---|---|---|")
base = None
for precision in precisions:
    run = Path(out) / f"smoke-{precision}"
    if not (run / "metrics.json").is_file():
        print(f"| {precision} | no run | | | | |")
        continue
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    metrics = json.loads((run / "metrics.json").read_text())
    seconds = metrics["seconds"] / metrics["step"]
    base = base or (losses[-1], seconds)
    ratios = f"{losses[-1] / base[0]:.3f} | {seconds:.3f} | {base[1] / seconds:.2f}"
    print(f"| {precision} | {losses[0]:.3f} | {losses[-1]:.3f} | {ratios} |")
PYTHON
}

{
  forward
  trainings
  steps
  printf '\n%d s of at most %d; everything is in %s\n' "$SECONDS" "$LIMIT" "$OUT"
  exit "$failed"
} 2>&1 | tee "$OUT/gpu_check.md"
exit "${PIPESTATUS[0]}"
