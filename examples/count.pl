#!/usr/bin/perl
# Not Python: one process that counts the steps of Collatz' sequences. Usage: perl count.pl [STEPS] [NUMBERS a step]
# No step sleeps; 15000 numbers take 0.1 to 0.3 s. Two runs with the same arguments print the same. Writes nothing.
use strict;
use warnings;

$| = 1;
my ($steps, $numbers) = (shift // 50, shift // 15000);
my ($next, $longest, $sum) = (1, 0, 0);
for my $step (0 .. $steps - 1) {
    for (1 .. $numbers) {
        my ($n, $length) = ($next++, 0);
        while ($n != 1) { $n = $n % 2 ? 3 * $n + 1 : $n / 2; $length++ }
        $longest = $length if $length > $longest;
        $sum = ($sum * 31 + $length) % 1000000007;
    }
    print "step $step longest $longest sum $sum\n";
}
print "end sum $sum\n";
