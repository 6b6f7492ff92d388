/* The clock and a histogram of latencies. */
#ifndef STATS_H
#define STATS_H

#include <stdint.h>

#define DIRECT 1024 /* microseconds that have a bucket of their own; above, a bucket is at most 1/512 of its value wide */
#define STEPS 512
#define BUCKETS (DIRECT + 40 * STEPS)

typedef struct {
    uint64_t counts[BUCKETS];
    uint64_t total, max;
} Histogram;

uint64_t now_us(void);
double cpu_seconds(void);
void histogram_add(Histogram *histogram, uint64_t us);
uint64_t histogram_percentile(const Histogram *histogram, double percent);

#endif
