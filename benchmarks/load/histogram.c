#include "histogram.h"

#include <stdint.h>

// Up to HISTOGRAM_STEPS tenths of a microsecond each value has its bucket; then every doubling has half as many.
static int bucket(double seconds) {
    uint64_t value = seconds > 0 ? (uint64_t)(seconds * 1e7) : 0;
    int shift = 0;
    while (value >> shift >= HISTOGRAM_STEPS) shift++;
    int found = shift * (HISTOGRAM_STEPS / 2) + (int)(value >> shift);
    return found < HISTOGRAM_SIZE ? found : HISTOGRAM_SIZE - 1;
}

static double microseconds(int bucket) {
    const int half = HISTOGRAM_STEPS / 2;
    int shift = bucket < HISTOGRAM_STEPS ? 0 : bucket / half - 1;
    uint64_t value = (uint64_t)(bucket - shift * half) << shift;
    return ((double)value + (double)(1ULL << shift) / 2) / 10;
}

void histogram_add(struct histogram *histogram, double seconds) {
    histogram->counts[bucket(seconds)]++;
    histogram->total++;
    if (seconds > histogram->longest) histogram->longest = seconds;
}

double histogram_quantile(const struct histogram *histogram, double share) {
    if (!histogram->total) return 0;
    long wanted = (long)(share * (double)(histogram->total - 1)) + 1, seen = 0;
    int i = 0;
    while (i < HISTOGRAM_SIZE - 1 && (seen += histogram->counts[i]) < wanted) i++;
    return microseconds(i);
}
