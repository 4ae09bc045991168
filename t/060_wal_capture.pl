# Every way a row can be written, captured from the log (capture => 'wal').
#
# Promise: that of t/005_capture.pl, which runs here.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Test::More;

use Entanglement::Node;		# its INIT blocks come too late in what is run below

$ENV{ENT_TEST_CAPTURE} = 'wal';
my $test = "$FindBin::RealBin/005_capture.pl";
do $test or die $@ || "could not run $test: $!";
