// Implicit alignment after its projections (align.py): every pixel attends to four cells of the
// maps. Compiled by kernels.py.

#include <immintrin.h>

#include "vectors.h"

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
constexpr int CELLS = 4;

struct MapSizes {
    int64_t pixels, heads, channels, height, width;  // channels of a head: whole `Four`s
};

// Far outside is as far as outside; what is no number may be anywhere.
static inline int64_t shift(float floor, int64_t extent) {
    const float bound = extent;
    return floor >= bound ? extent : floor > -bound ? (int64_t)floor : -extent;
}
static inline int64_t inside(int64_t i, int64_t extent) {
    return i < 0 ? 0 : i < extent ? i : extent - 1;
}

// Of the cells (0, 0), (0, 1), (1, 0), (1, 1) from a pixel's place plus floor (y, x).
static inline void find_rows(int64_t *row, int64_t place, const float *floor, MapSizes size) {
    const int64_t in_map = place % (size.height * size.width), first = place - in_map;
    const int64_t y = in_map / size.width + shift(floor[0], size.height);
    const int64_t x = in_map % size.width + shift(floor[1], size.width);
    for (int i = 0; i < CELLS; i++)
        row[i] = first + inside(y + i / 2, size.height) * size.width + inside(x + i % 2, size.width);
}

// softmax over the cells of query . (key[cell] + key_bias), then the mean of value[cell] +
// value_bias with these weights. Rows have heads * channels numbers; floor is (y, x).
extern "C" void iart_resample(float *out, const float *query, const float *key, const float *value,
                              const float *key_bias, const float *value_bias, const float *floor,
                              const int64_t *place, MapSizes size, int threads) {
    const int64_t width = size.heads * size.channels;
    const int64_t logits = (size.heads * CELLS + LANES - 1) / LANES * LANES;
#pragma omp parallel num_threads(threads)
    {
        float *weight = numbers(logits);
        for (int64_t i = 0; i < logits; i++) weight[i] = 0;
#pragma omp for schedule(static)
        for (int64_t p = 0; p < size.pixels; p++) {
            int64_t row[CELLS];
            find_rows(row, place[p], floor + 2 * p, size);
            for (int64_t n = 0; n < size.heads; n++) {
                Four sum[CELLS] = {};
                for (int64_t c = n * size.channels; c < (n + 1) * size.channels; c += 4)
                    for (int i = 0; i < CELLS; i++)
                        sum[i] += *(Four *)(query + p * width + c) *
                                  (*(Four *)(key + row[i] * width + c) +
                                   *(Four *)(key_bias + i * width + c));
                Four logit = _mm_hadd_ps(_mm_hadd_ps(sum[0], sum[1]), _mm_hadd_ps(sum[2], sum[3]));
                float highest = logit[0];
                for (int i = 1; i < CELLS; i++) highest = logit[i] > highest ? logit[i] : highest;
                *(Four *)(weight + n * CELLS) = logit - highest;
            }
            for (int64_t i = 0; i < logits; i += LANES)
                *(Lanes *)(weight + i) = exponential(*(Lanes *)(weight + i));
            for (int64_t n = 0; n < size.heads; n++) {
                Four share = *(Four *)(weight + n * CELLS);
                share /= share[0] + share[1] + share[2] + share[3];
                for (int64_t c = n * size.channels; c < (n + 1) * size.channels; c += 4) {
                    Four sum = {};
                    for (int i = 0; i < CELLS; i++)
                        sum += share[i] * (*(Four *)(value + row[i] * width + c) +
                                           *(Four *)(value_bias + i * width + c));
                    *(Four *)(out + p * width + c) = sum;
                }
            }
        }
        free(weight);
    }
}
