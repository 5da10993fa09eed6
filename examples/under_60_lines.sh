#!/bin/sh
# An example is something to read in one sitting.
lines=$(wc -l <"$1")
[ "$lines" -lt 60 ] || { echo "expected under 60 lines in $1, found $lines" >&2; exit 1; }
