#!/bin/sh
# A shell pipeline: three processes, two pipes with data in flight. Usage: pipeline.sh [STEPS] [LINES a step] [SEED]
# A generator makes pseudo-random numbers, a filter tests them for being prime, a third counts and adds; one line a step.
# No step sleeps; 40000 lines take 0.1 to 0.3 s. Two runs with the same arguments print the same. Writes nothing.
set -eu
steps=${1:-50} lines=${2:-40000} seed=${3:-1}

awk -v n="$((steps * lines))" -v x="$seed" 'BEGIN {
    for (i = 0; i < n; i++) { x = (x * 16807) % 2147483647; print x % 1000003 }
}' | perl -ne 'BEGIN { $| = 0 }
    my $prime = $_ > 1;
    for (my $d = 2; $prime && $d * $d <= $_; $d++) { $prime = 0 if $_ % $d == 0 }
    print $prime ? "1 $_" : "0 $_";
' | perl -e 'use strict; $| = 1;
    my ($lines, $step, $seen, $primes, $sum) = (shift, 0, 0, 0, 0);
    while (<STDIN>) {
        my ($prime, $value) = split;
        $primes += $prime;
        $sum = ($sum * 31 + $value * (1 + $prime)) % 1000000007;
        next if ++$seen % $lines;
        print "step $step primes $primes sum $sum\n";
        $step++;
    }
    print "end sum $sum\n";
' "$lines"
