#!/bin/sh
# A pipeline of programs that know nothing of Python, with a background job, a here-document and a trap.
trap 'echo bye' EXIT
perl -e '$| = 1; for my $i (0 .. 59) { print "$i\n"; select(undef, undef, undef, 0.04) }' |
sed -u 's/$/ is/' |
while read -r step is; do
    sum=$(expr "0$sum" + "$step" \* "$step")
    echo "step $step $is $sum"
done &
wait $!
cat << END
ended with $?
END
