// Latencies, counted in buckets that are less than 2 % wide: memory does not grow with what is measured.
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#define HISTOGRAM_STEPS 128
#define HISTOGRAM_SIZE (40 * HISTOGRAM_STEPS)

struct histogram {
    long counts[HISTOGRAM_SIZE];
    long total;
    double longest;
};

void histogram_add(struct histogram *histogram, double seconds);

// Returns the latency, in microseconds, that a share of all did not exceed; 0 if there are none.
double histogram_quantile(const struct histogram *histogram, double share);

#endif
