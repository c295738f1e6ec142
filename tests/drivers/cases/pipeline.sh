# A pipeline whose writer waits in the middle
for i in $(seq 1 200); do echo "$i"; done > numbers
{ head -100 numbers; echo ready >&2; while [ ! -e go ]; do sleep 0.02; done; tail -100 numbers; } |
  awk '{ print $1 * 2; fflush() }' | while read -r n; do total=$((total + n)); echo "$n $total"; done > totals
tail -1 totals; cat totals | wc -l
