#include "stats.h"

#include <sys/resource.h>
#include <time.h>

uint64_t now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

/* Return the user and system time of this process. */
double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int bucket_of(uint64_t us) {
    if (us < DIRECT) return (int)us;
    int doublings = 63 - __builtin_clzll(us) - 10; /* 0 from 1024 to 2047 */
    int bucket = DIRECT + doublings * STEPS + (int)((us >> (doublings + 1)) - STEPS);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* Return the lowest value of a bucket. */
static uint64_t value_of(int bucket) {
    if (bucket < DIRECT) return bucket;
    int doublings = (bucket - DIRECT) / STEPS;
    return (uint64_t)((bucket - DIRECT) % STEPS + STEPS) << (doublings + 1);
}

void histogram_add(Histogram *histogram, uint64_t us) {
    histogram->counts[bucket_of(us)]++;
    histogram->total++;
    if (us > histogram->max) histogram->max = us;
}

uint64_t histogram_percentile(const Histogram *histogram, double percent) {
    uint64_t wanted = (uint64_t)(histogram->total * percent / 100), seen = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen > wanted) return value_of(bucket);
    }
    return histogram->max;
}
