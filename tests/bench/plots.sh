#!/bin/sh
# SPDX-License-Identifier: MIT
# plots.sh DIRECTORY - draws results.csv and latency.csv of the directory as SVG, one file a plot. Without gnuplot, and where a
# curve was not measured, it says so and draws nothing.
set -u
dir=$1
results=$dir/results.csv
latency=$dir/latency.csv

if ! command -v gnuplot >/dev/null 2>&1; then
    echo "bench: no plots: gnuplot is not installed (make bench-deps installs it)"
    exit 0
fi

# The points of a curve: column x and column median of the rows whose key begins so. Commas inside quotes are none.
points() {
    awk -F, -v prefix="$1" 'index($1, prefix) == 1 { gsub(/"[^"]*"/, "text"); print $4, $6 }' "$results" >"$dir/plot.$1"
    [ "$(wc -l <"$dir/plot.$1")" -ge 2 ]
}

# draw NAME: gnuplot commands from standard input.
draw() {
    { printf 'set terminal svg size 720,440 enhanced background "white" font "sans-serif,13"\nset output "%s"\n' "$dir/$1.svg"
      printf 'set grid lc rgb "#dddddd"\nset border 3\nset tics nomirror\nset style data linespoints\nset pointsize 0.6\n'
      cat; } >"$dir/plot.gp"
    if gnuplot "$dir/plot.gp"; then
        echo "bench: $dir/$1.svg"
    else
        echo "bench: gnuplot could not draw $1" >&2
        failed=1
    fi
}

failed=0
trap 'rm -f "$dir"/plot.*' EXIT

if points size.shm. && points size.inproc.; then
    # Left the messages, right the bytes they carry.
    draw throughput <<PLOT
set title "One publisher, one reader"
set xlabel "bytes of a message"
set ylabel "million messages a second"
set y2label "GB/s (broken lines)"
set logscale x 2
set xtics (16, 64, 256, "1 K" 1024, "4 K" 4096, "16 K" 16384, "64 K" 65536, "256 K" 262144, "1 M" 1048576)
set logscale y
set logscale y2
set y2tics
set key bottom left
plot "$dir/plot.size.shm." title "shm" lw 2 lc rgb "#1b6ca8", "$dir/plot.size.inproc." title "inproc" lw 2 lc rgb "#d1495b", \\
     "$dir/plot.size.shm." using 1:(\$1*\$2/1000) axes x1y2 notitle dt 2 lc rgb "#1b6ca8", \\
     "$dir/plot.size.inproc." using 1:(\$1*\$2/1000) axes x1y2 notitle dt 2 lc rgb "#d1495b"
PLOT
else
    echo "bench: no plot of throughput by payload: not measured"
fi

if points burst.; then
    draw subscribers <<PLOT
set title "Cost of a publish, in bursts of 32"
set xlabel "subscribers"
set ylabel "ns for the publisher"
set logscale x 2
set yrange [0:*]
plot "$dir/plot.burst." title "shm" lw 2 lc rgb "#1b6ca8"
PLOT
else
    echo "bench: no plot of cost by subscribers: not measured"
fi

if points topics.; then
    draw topics <<PLOT
set title "Cost of a message end to end, every topic subscribed and used in turn"
set xlabel "topics"
set format x "%.0s%c"
set ylabel "ns"
set logscale x
set yrange [0:*]
plot "$dir/plot.topics." title "shm" lw 2 lc rgb "#1b6ca8"
PLOT
else
    echo "bench: no plot of cost by topics: not measured"
fi

curves=
for key in $(awk -F, 'NR > 1 && !seen[$1]++ { print $1 }' "$latency"); do
    awk -F, -v key="$key" '$1 == key { print $2, $3 * 100 }' "$latency" >"$dir/plot.$key"
    curves="$curves${curves:+, }\"$dir/plot.$key\" with histeps lw 1.5 title \"$key\""
done
if [ -n "$curves" ]; then
    draw latency <<PLOT
set title "Latency, one way, all repetitions"
set xlabel "nanoseconds"
set ylabel "% of the messages, 20 bins a decade"
set logscale x
set logscale y
set yrange [0.0005:100]
set key below
set format x "%.0s%c"
plot $curves
PLOT
else
    echo "bench: no plot of latency: not measured"
fi
exit $failed
